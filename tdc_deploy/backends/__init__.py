"""Where a model runs: one small interface, one module per backend."""
