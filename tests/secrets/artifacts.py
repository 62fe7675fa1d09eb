"""Everything that an Airflow leaves behind, as bytes to be searched."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken

_ENCRYPTED = re.compile(rb"gAAAAA[\w-]+={0,2}")


class Trace(NamedTuple):
    """Something that was left behind.

    :param kind: ``logs``, ``output``, ``database`` or ``files``.
    :param place: where exactly.
    """

    kind: str
    place: str
    data: bytes


def files(home: Path) -> Iterator[Trace]:
    """All files below the home of an Airflow but for its database."""
    for path in sorted(home.rglob("*")):
        if path.is_file() and not path.name.startswith("airflow.db"):
            place = path.relative_to(home)
            kind = {"logs": "logs", "out": "output"}.get(place.parts[0], "files")
            yield Trace(kind, str(place), path.read_bytes())


def rows(database: Path, fernet: Fernet, *wanted: str) -> Iterator[Trace]:
    """Tables of the metadata database; all of them, if none is named.

    What is encrypted is decrypted, so that triggers' arguments can be read; but not connections,
    which are the place for secrets.
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for name in wanted or [name for (name,) in names]:
            found = connection.execute(f'SELECT * FROM "{name}"').fetchall()
            data = b"\n".join(_bytes(value) for row in found for value in row)
            if name != "connection":
                data += b"\n" + b"\n".join(_decrypted(data, fernet))
            yield Trace("database", f"table {name}", data)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


def _decrypted(data: bytes, fernet: Fernet) -> Iterator[bytes]:
    for found in _ENCRYPTED.finditer(data):
        try:
            yield fernet.decrypt(found[0])
        except InvalidToken:
            continue
