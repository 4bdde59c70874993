"""Speed of this server beside its peers, measured in one run: `python -m benchmarks`. See docs/benchmarks.md."""
