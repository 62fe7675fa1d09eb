"""One HTTP exchange: how a request is sent, what a failed one means, and when it is repeated.

``connections`` and ``transport`` import ``requests``, so only the session imports them, at the
first exchange.
"""

__all__ = [
    "advice",
    "connections",
    "dates",
    "error_mapping",
    "retry",
    "transport",
]
