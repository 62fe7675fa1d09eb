"""Tests of ``http``."""
