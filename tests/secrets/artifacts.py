"""Everything that an Airflow has written, as bytes to search."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken

_ENCRYPTED = re.compile(rb"gAAAAA[\w-]+={0,2}")


class Artifact(NamedTuple):
    """A file or a table that Airflow has written.

    :param kind: ``logs``, ``output``, ``database`` or ``files``.
    :param place: path of the file, or name of the table.
    """

    kind: str
    place: str
    data: bytes


def files(home: Path) -> Iterator[Artifact]:
    """Yield all files in the home of an Airflow except its database."""
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.name.startswith("airflow.db"):
            place = path.relative_to(home)
            kind = {"logs": "logs", "out": "output"}.get(place.parts[0], "files")
            yield Artifact(kind, str(place), path.read_bytes())


def tables(database: Path, fernet: Fernet, *names: str) -> Iterator[Artifact]:
    """Yield tables of a metadata database; all of them if no name is given.

    Encrypted values, such as arguments of triggers, are yielded decrypted too. Connections are not,
    because they are where secrets belong.
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        for name in names or [name for (name,) in connection.execute(query).fetchall()]:
            rows = connection.execute(f'SELECT * FROM "{name}"').fetchall()
            data = b"\n".join(_to_bytes(value) for row in rows for value in row)
            if name != "connection":
                data += b"\n" + b"\n".join(_decrypted(data, fernet))
            yield Artifact("database", f"table {name}", data)


def _to_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def _decrypted(data: bytes, fernet: Fernet) -> Iterator[bytes]:
    for match in _ENCRYPTED.finditer(data):
        try:
            yield fernet.decrypt(match[0])
        except InvalidToken:
            continue
