"""PostgreSQL and Redis of the distribution, as processes on the loopback interface."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from demo.processes import free_ports, wait_until

#: Time limit in seconds until a server answers.
_TIMEOUT = 30
#: The user of the package. PostgreSQL does not run as root.
_OWNER = "postgres"


class Postgres:
    """A PostgreSQL server with a metadata database, as a ``MetadataDatabase``.

    :param folder: an existing folder that every user can reach.
    """

    single_writer = False

    def __init__(self, folder: Path) -> None:
        self._data, self._log = folder / "postgres", folder / "postgres.log"
        (self._port,) = free_ports(1)
        self._address = f"airflow@127.0.0.1:{self._port}"
        self._engine = create_engine(self.url, poolclass=NullPool)
        self._server: subprocess.Popen[bytes] | None = None
        self._owner: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._owner = {"user": _OWNER, "group": _OWNER, "extra_groups": []}

    @property
    def url(self) -> str:
        """The address in Airflow's configuration."""
        return f"postgresql+psycopg2://{self._address}/airflow"

    def start(self) -> None:
        """Create the data folder, start the server, and wait until it answers."""
        self._data.mkdir(mode=0o700)
        if self._owner:
            shutil.chown(self._data, _OWNER, _OWNER)
        options = ("--username", "airflow", "--auth", "trust", "--no-sync", "--encoding", "UTF8")
        with self._log.open("ab") as log:
            subprocess.run(
                [_program("initdb"), "--pgdata", self._data, *options],
                **(self._owner | {"check": True, "cwd": "/", "stdout": log, "stderr": log}),
            )
            # Faster, at the risk of losing data that are temporary anyway.
            unsafe = ("-c", "fsync=off", "-c", "synchronous_commit=off")
            self._server = subprocess.Popen(
                [
                    *(_program("postgres"), "-D", self._data, "-p", str(self._port), *unsafe),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *("-c", "max_connections=200"),
                ],
                **(self._owner | {"cwd": "/", "stdout": log, "stderr": log}),
            )
        wait_until(self._answers, _TIMEOUT, "PostgreSQL answers")
        server = create_engine(f"postgresql+psycopg2://{self._address}/postgres")
        with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CREATE DATABASE airflow"))
        server.dispose()

    def stop(self) -> None:
        """End the server, even if clients are connected."""
        _end(self._server, signal.SIGINT)

    def prepare(self, slots: int) -> None:
        """Set the slots of the default pool."""
        with self._engine.begin() as connection:
            connection.execute(text("UPDATE slot_pool SET slots = :slots"), {"slots": slots})

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._engine.connect() as connection:
            rows = connection.exec_driver_sql(sql.replace("?", "%s"), values)
            return [tuple(row) for row in rows]

    def writable(self) -> bool:
        """Return true: writers do not wait for each other."""
        return True

    def _answers(self) -> bool:
        if self._server is None or self._server.poll() is not None:
            raise RuntimeError(f"PostgreSQL has ended: {self._log.read_text()[-2000:]}")
        engine = create_engine(f"postgresql+psycopg2://{self._address}/postgres")
        try:
            engine.connect().close()
        except OperationalError:
            return False
        finally:
            engine.dispose()
        return True


class Redis:
    """A Redis server that stores nothing on disk.

    :param folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = ("redis-server", "--bind", "127.0.0.1", "--port", str(self._port), "--save", "")
        with (self._folder / "redis.log").open("ab") as log:
            self._server = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        wait_until(self._answers, _TIMEOUT, "Redis answers")

    def stop(self) -> None:
        """End the server."""
        _end(self._server, signal.SIGTERM)

    def _answers(self) -> bool:
        command = ("redis-cli", "-h", "127.0.0.1", "-p", str(self._port), "ping")
        return subprocess.run(command, capture_output=True, check=False).stdout == b"PONG\n"


def find_program(name: str) -> Path | None:
    """Return the path of a server program of PostgreSQL, which Debian does not put on the path."""
    programs = [*map(Path, filter(None, [shutil.which(name)]))]
    programs += sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return programs[-1] if programs else None


def _program(name: str) -> Path:
    program = find_program(name)
    if program is None:
        raise RuntimeError(f"{name} was not found; on Debian and Ubuntu: apt install postgresql")
    return program


def _end(server: subprocess.Popen[bytes] | None, number: int) -> None:
    if server is None:
        return
    server.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        server.wait(20)
        return
    server.kill()
    server.wait()
