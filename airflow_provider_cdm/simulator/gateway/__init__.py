"""What stands in front of CDM: tokens, signatures, quotas and faults."""

__all__ = [
    "api_gateway",
    "iam",
    "quotas",
    "signatures",
]
