"""Tests of ``sensors``."""
