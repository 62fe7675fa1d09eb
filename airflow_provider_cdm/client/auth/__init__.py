"""Who a request is from: tokens, access keys, agencies, and the guard against lock-out."""

__all__ = [
    "access_key",
    "base",
    "factory",
    "lockout",
    "signing",
    "token",
    "token_cache",
]
