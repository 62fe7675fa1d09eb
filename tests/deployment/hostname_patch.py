"""Each process of Airflow takes its name for that of its machine, so that the database tells them
apart; a file for them to import.
"""

from __future__ import annotations

import os


def name() -> str:
    """The name of the component, and of all that it starts."""
    return os.environ.get("COMPONENT", "nobody")
