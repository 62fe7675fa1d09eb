"""Tests of ``CdmRunJobOperator``: its job is created, run exactly once and deleted."""
