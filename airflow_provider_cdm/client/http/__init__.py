"""One HTTP exchange: how it is sent, what a failed one means, and when it is repeated."""

__all__ = [
    "error_mapping",
    "retry",
    "transport",
]
