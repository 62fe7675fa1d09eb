"""Tests of ``operators``."""
