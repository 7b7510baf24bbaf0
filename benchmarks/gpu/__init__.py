"""What gpu_kernels.py and gpu_check.py are made of; only modules that say so need torch."""
