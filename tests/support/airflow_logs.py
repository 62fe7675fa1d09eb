"""Logs of Airflow's tasks as text."""

from __future__ import annotations

import json
from pathlib import Path


def read_log(path: Path) -> str:
    """Return a log file as text. Airflow 3 writes a JSON object for each message."""
    lines = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            shown = (str(entry.get(key, ""))[:400] for key in ("timestamp", "level", "event"))
            errors = entry.get("error_detail", [])
            raised = (f"{error['exc_type']}: {error['exc_value']}" for error in errors)
            stack = json.dumps(errors)[-1500:] if errors else ""
            lines.append(" ".join((*shown, *raised, stack)))
        except (ValueError, AttributeError, KeyError, TypeError):
            lines.append(line)
    return "\n".join(lines)
