"""Has Airflow 2 read a DAG file at once, as ``airflow dags reserialize`` does.

On SQLite, Airflow 2 reads one file in each loop of its scheduler, so an edit is known only after
minutes if there are many.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class DagReader:
    """A process that reads DAG files; to start Airflow for each would take seconds.

    :param environment: environment variables of Airflow's processes.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def read(self, path: Path) -> None:
        """Read a file, and store its DAG.

        :raises RuntimeError: when that is not possible.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.strip() == f"stored {path}":
                return
        raise RuntimeError(f"{path} was not read")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Read the files that are named on the input."""
    from airflow.models.dagbag import DagBag

    for line in sys.stdin:
        bag = DagBag(line.strip(), include_examples=False)
        bag.sync_to_db()
        sys.stdout.write(f"stored {line.strip()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
