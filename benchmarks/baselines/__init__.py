"""Plain implementations of what this project does in another way, for the benchmarks to compare."""
