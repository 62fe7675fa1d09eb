"""Benchmarks of the provider; see README.md."""
