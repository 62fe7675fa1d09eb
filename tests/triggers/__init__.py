"""Tests of ``triggers``."""
