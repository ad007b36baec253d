"""Benchmarks of fastsiren against the ways PyTorch offers: `python -m fastsiren.bench cpu | report | gates`."""
