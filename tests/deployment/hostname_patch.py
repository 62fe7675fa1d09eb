"""A hostname callable that gives each component a name of its own, as on separate machines.

Airflow's processes import a copy of this file. The metadata database identifies them by hostname.
"""

from __future__ import annotations

import os


def component_name() -> str:
    """Return the name of the component to which this process belongs."""
    return os.environ.get("COMPONENT", "unknown")
