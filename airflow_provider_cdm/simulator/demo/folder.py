"""The folder of ``--demo``: configuration, databases and DAGs."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from airflow_provider_cdm.simulator.demo.databases import DAYS, MOVED_DAYS, Databases

#: Name of the folder that is made in the working folder if none is named.
DEFAULT = "cdm-demo"
#: The configuration that the demo starts from, and that the example DAGs need.
CONFIG = Path(__file__).with_name("simulator.yaml")
#: The DAGs to copy.
DAGS = Path(__file__).parent / "dags" / "cdm_demo.py"
#: First line of the configuration in a folder; without it, a folder belongs to somebody else.
_MARK = "# Made by python -m airflow_provider_cdm.simulator --demo. Edit it as you like.\n"


class DemoFolder:
    """The folder of a demo.

    :param path: folder; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        #: Configuration of the simulator. It stays from one start to the next, with its password.
        self.config = self.path / "simulator.yaml"
        self.dags = self.path / DAGS.name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder with its configuration, and keep other demos out of it.

        :raises ValueError: if the folder is another demo's, or has files that are not a demo's.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._is_ours():
            raise ValueError(
                f"{self.path} has files, and the demo replaces files. "
                "Name a new or an empty folder: --demo FOLDER"
            )
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise ValueError(
                    f"Another demo runs in {self.path}. Stop it, or name another folder: "
                    "--demo FOLDER"
                ) from exc
            if not self.config.exists():
                self._write_config()
            yield

    def fill(self) -> Databases:
        """Create the databases and the DAG file; those of an earlier demo are replaced."""
        databases = Databases.create(self.path)
        databases.repair()
        shutil.copyfile(DAGS, self.dags)
        return databases

    def instructions(self, databases: Databases, connection_uri: str) -> str:
        """Return what to print: what the folder holds, and how to use it.

        :param databases: databases of the folder.
        :param connection_uri: Airflow connection to the simulator, as a URI.
        """
        return f"""
The folder {self.path} has the databases: source.db with {databases.source.count():,} orders of
{DAYS[0]} to {DAYS[-1]}, and target.db, mirror.db and ledger.db, which are empty. Each start makes
them anew. The jobs are in {self.config.name}; the address above is a page that shows their runs and
has buttons to stop, fail or slow them.

1. Make the connection in your Airflow: with the variable above, or with the same as a URI:

airflow connections add cdm_default --conn-uri {shlex.quote(connection_uri)}

2. Copy these DAGs to your DAGs folder, and unpause them:

dags="$(airflow config get-value core dags_folder | tail -n 1)"
mkdir -p "$dags" && cp {shlex.quote(str(self.dags))} "$dags"

cdm_demo_daily moves the orders of {_listed(MOVED_DAYS)}, and of no other day.

{"-" * 80}
{DAGS.read_text(encoding="utf-8")}{"-" * 80}
Ctrl-C ends the simulator. The folder stays; delete it when you no longer need it.
"""

    def _is_ours(self) -> bool:
        if self.config.exists():
            return self.config.read_text(encoding="utf-8").startswith(_MARK)
        return not any(path.name != "lock" for path in self.path.iterdir())

    def _write_config(self) -> None:
        """Write the configuration, with a password of its own, for its owner only."""
        user = f"\nusers:\n  - {{name: airflow, password: {secrets.token_hex(10)}}}\n"
        opened = os.open(self.config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            file.write(_MARK + CONFIG.read_text(encoding="utf-8") + user)


def _listed(days: Iterable[date]) -> str:
    *others, last = map(str, days)
    return f"{', '.join(others)} and {last}"
