"""Tests of ``lineage``."""
