"""One script per claim, run as `python -m benchmarks.<name>`: each measures and prints one JSON object."""
