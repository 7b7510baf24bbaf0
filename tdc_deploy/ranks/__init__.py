"""Which ranks: the candidates of each layer, their costs, and the solvers that choose."""
