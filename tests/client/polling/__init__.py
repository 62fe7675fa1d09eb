"""Tests of ``polling``."""
