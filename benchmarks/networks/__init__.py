"""The networks of the benchmarks: their architectures, their weights, their inputs, by name."""
