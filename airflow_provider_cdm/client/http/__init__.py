"""One HTTP exchange: how a request is sent, what a failed one means, and when it is repeated.

``connections``, ``responses`` and ``transport`` import ``requests`` or urllib3, so only the session
imports them, at the first exchange.
"""

__all__ = [
    "advice",
    "connections",
    "dates",
    "error_mapping",
    "responses",
    "retry",
    "transport",
]
