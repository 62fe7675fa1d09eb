"""Measurements of the provider; see README.md."""
