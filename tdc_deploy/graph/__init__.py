"""ONNX surgery: find convolutions and chains, decompose, fuse and un-fuse."""
