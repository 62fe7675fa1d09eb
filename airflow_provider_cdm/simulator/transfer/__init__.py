"""The transfer of rows between real databases, for jobs of the generic JDBC connector."""

__all__ = [
    "columns",
    "jdbc",
    "postgresql",
    "staging",
    "values",
]
