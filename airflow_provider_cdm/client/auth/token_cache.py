"""Tokens on disk, so that short-lived processes of one machine need not ask for one each.

Off unless the connection names a folder. A file holds one token, encrypted; only its owner may read
it. Whatever goes wrong here costs a call to IAM and a warning, and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Cipher(Protocol):
    """Encrypts what goes to disk."""

    def encrypt(self, msg: bytes, /) -> bytes:
        """Return it encrypted."""

    def decrypt(self, msg: bytes, /) -> bytes:
        """Return it decrypted; raises where it is not what was encrypted."""


class Lock:
    """The right to ask IAM for a token; the operating system takes it back from the dead.

    :param descriptor: of the locked file; ``None`` where the cache cannot be used.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether there is a cache behind it."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let the next one ask."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        # Whoever asked for it on an event loop may have been cancelled before it came.
        self.release()


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The place of one token on disk.

    :param path: file of the token.
    :param fingerprint: of the credentials that the token was given for; goes into the file, where
        it is encrypted.
    :param cipher: encrypts it.
    """

    path: Path
    fingerprint: str
    cipher: Cipher

    def load(self) -> Mapping[str, Any] | None:
        """Return what was saved, ``None`` if there is nothing of use."""
        try:
            content = json.loads(self.cipher.decrypt(_read(self.path)))
        except FileNotFoundError:
            return None
        except Exception as error:
            self._complain("read", error)
            return None
        if not isinstance(content, dict) or content.get("fingerprint") != self.fingerprint:
            return None
        token: Mapping[str, Any] | None = content.get("token")
        return token

    def save(self, token: Mapping[str, Any]) -> None:
        """Leave a token for other processes, in place of an earlier one, in one step."""
        content = json.dumps({"fingerprint": self.fingerprint, "token": token})
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(draft, "xb", opener=_private) as file:
                file.write(self.cipher.encrypt(content.encode()))
            draft.replace(self.path)
        except Exception as error:
            self._complain("written", error)
            with suppress(OSError):
                draft.unlink()

    def drop(self, value: str) -> None:
        """Delete the file if it still holds this token, which a service did not accept."""
        if (token := self.load()) and token.get("value") == value:
            with suppress(OSError):
                self.path.unlink()

    def lock(self) -> Lock | None:
        """Ask for the right to get a new token, without waiting.

        :returns: ``None`` while another process has it.
        """
        lock = Lock()
        try:
            _make_folder(self.path.parent)
            path = self.path.with_suffix(".lock")
            descriptor = _private(str(path), os.O_CREAT | os.O_RDWR)
            lock = Lock(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        except OSError as error:
            lock.release()
            self._complain("used", error)
        return lock

    def _complain(self, verb: str, error: Exception) -> None:
        # Of a failed decryption not even the text: it may quote what it could not read.
        what = error if isinstance(error, OSError) else type(error).__name__
        log.warning(
            "The token cache %s cannot be %s, so this process asks IAM for a token of its own: %s",
            *(self.path, verb, what),
        )


def token_file(folder: str, cipher: Cipher, identity: str, secret: str) -> TokenFile:
    """Return the place of a token on disk; touches nothing yet.

    :param identity: whose token for what; only its digest shows, in the name of the file.
    :param secret: the credentials; only their digest is kept, encrypted.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    fingerprint = hashlib.sha256(secret.encode()).hexdigest()
    return TokenFile(Path(folder).expanduser() / f"{name}.token", fingerprint, cipher)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _read(path: Path) -> bytes:
    with open(path, "rb", opener=_private) as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError("the file belongs to somebody else, or others may read it")
        return file.read()


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise PermissionError("the folder belongs to somebody else, or others may write to it")
