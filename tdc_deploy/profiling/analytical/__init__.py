"""The analytical model: which kernel configurations should be fast, predicted without a GPU."""
