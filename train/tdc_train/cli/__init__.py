"""The command line: `tdc-train`."""
