"""Triton: write a model repository from an artifact, and the model that serves it from Python."""
