"""One HTTP exchange: how a request is sent, what a failed one means, and when it is repeated.

``transport`` imports ``requests``, so only the session imports it, at the first exchange.
"""

__all__ = [
    "dates",
    "error_mapping",
    "retry",
    "transport",
]
