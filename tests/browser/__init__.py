"""The simulator's page in a real browser; run by scripts/browser."""
