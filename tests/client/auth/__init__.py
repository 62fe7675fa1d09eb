"""Tests of ``auth``."""
