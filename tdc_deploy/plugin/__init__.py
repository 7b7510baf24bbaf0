"""The CUDA kernels and the TensorRT plugin from Python: their sources, builds and C interface."""
