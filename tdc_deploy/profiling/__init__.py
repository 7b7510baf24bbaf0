"""Latency: measuring it, keeping it, bounding it, comparing two networks."""
