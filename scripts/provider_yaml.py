"""Writes provider.yaml, from which Airflow's own tools read what a provider contains.

Its source is ``get_provider_info()``, so that there is one place to edit. With ``--check``, nothing
is written, and an outdated file is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FILE = ROOT / "airflow_provider_cdm" / "provider.yaml"
HEAD = "# Made by scripts/provider_yaml.py out of get_provider_info(); edit that instead.\n"
#: Date of this version in epoch seconds, for reproducible builds.
SOURCE_DATE_EPOCH = 1795132800


def content() -> str:
    """Return the expected content of the file."""
    sys.path.insert(0, str(ROOT))
    from airflow_provider_cdm import get_provider_info

    info: dict[str, Any] = {
        **get_provider_info(),
        "state": "ready",
        "source-date-epoch": SOURCE_DATE_EPOCH,
    }
    return HEAD + yaml.safe_dump(info, sort_keys=False, width=100)


def main() -> None:
    """Write the file, or check it."""
    if "--check" not in sys.argv[1:]:
        FILE.write_text(content())
    elif FILE.read_text() != content():
        sys.exit(f"{FILE.name} is out of date; run scripts/provider_yaml.py")


if __name__ == "__main__":
    main()
