"""Tests of ``whole_database``."""
