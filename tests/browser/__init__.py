"""Tests of the simulator's page in a real browser; ``nox -s browser`` runs them."""
