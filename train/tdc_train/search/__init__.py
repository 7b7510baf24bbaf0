"""Differentiable rank search by measured time (HALOC: Xiao et al., AAAI 2023)."""
