"""A job is started exactly once despite network faults, retries and clears, with real rows."""
