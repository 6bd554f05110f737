"""The commands: evaluations and benchmarks."""
