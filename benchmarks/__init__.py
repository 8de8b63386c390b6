"""How fast, beside what: each figure with a baseline measured in the same sitting. `python -m benchmarks --help`."""
