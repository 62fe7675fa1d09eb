"""Tests of ``watching``."""
