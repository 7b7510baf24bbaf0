"""One HTML page about a build or a plan; imported only where one is asked for."""
