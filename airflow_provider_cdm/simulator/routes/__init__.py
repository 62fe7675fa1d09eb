"""The HTTP routes of CDM, IAM and the simulator itself."""

__all__ = [
    "clusters",
    "control",
    "iam",
    "jobs",
    "links",
    "router",
    "routing",
    "serializers",
]
