"""The services in front of CDM: IAM tokens, request signatures, project access and quotas."""

__all__ = [
    "api_gateway",
    "iam",
    "lockout",
    "quotas",
    "signatures",
    "web_access",
]
