"""Data sets of images: read from disk, or generated."""
