"""OpenLineage events of a run; imported only where the OpenLineage provider is active."""

__all__ = [
    "facets",
    "naming",
]
