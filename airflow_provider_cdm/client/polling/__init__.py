"""All waits on one cluster within the user's quota: what to ask next, and what the answers mean."""

__all__ = [
    "circuit_breaker",
    "metered_client",
    "model",
    "planner",
    "queue",
    "rate_limit",
    "registry",
    "sweep",
]
