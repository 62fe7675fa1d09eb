"""What OpenLineage events say about a run; imported only where that provider is active."""

__all__ = [
    "facets",
    "naming",
    "stores",
]
