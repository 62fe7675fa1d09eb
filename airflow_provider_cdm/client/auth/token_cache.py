"""The token cache: tokens on disk, shared by the short-lived processes of one machine.

The cache is off unless the connection names a folder. A file holds one encrypted token, and only
its owner may read it. A failure of the cache causes a call to IAM and a warning, nothing more.
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

#: Largest file that is read, in bytes; a token has less than 20,000.
_SIZE_LIMIT = 1024 * 1024


class Cipher(Protocol):
    """Encrypts the content of files, such as ``cryptography.fernet.Fernet``."""

    def encrypt(self, msg: bytes, /) -> bytes:
        """Return the encrypted content."""

    def decrypt(self, msg: bytes, /) -> bytes:
        """Return the decrypted content; raise an error if it was not encrypted with this key."""


class Lock:
    """Exclusive right to request a token; the operating system releases it if the process dies.

    :param descriptor: descriptor of the locked file; ``None`` if the cache cannot be used.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._pid = os.getpid()

    @property
    def held(self) -> bool:
        """Whether a file is locked; ``False`` if the cache cannot be used."""
        return self._descriptor is not None

    def release(self) -> None:
        """Release the lock, so that another process can request a token."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # A process that was forked in the meantime has the descriptor as well, and would keep the
        # file locked; in such a process, the lock is not ours to release.
        if os.getpid() == self._pid:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def __del__(self) -> None:
        # A flow on an event loop may have been cancelled before it received the lock.
        self.release()


@dataclass(frozen=True, slots=True)
class TokenFile:
    """File of one token.

    :param path: path of the file.
    :param fingerprint: digest of the credentials that the token was issued for; it is stored in the
        file, encrypted.
    :param cipher: encryption of the file.
    """

    path: Path
    fingerprint: str
    cipher: Cipher

    def load(self) -> Mapping[str, Any] | None:
        """Return the saved fields of a token; ``None`` if there are none that can be used."""
        try:
            content = json.loads(self.cipher.decrypt(_read_private(self.path)))
        except FileNotFoundError:
            return None
        except Exception as error:
            self._warn("read", error)
            return None
        if not isinstance(content, dict) or content.get("fingerprint") != self.fingerprint:
            return None
        token = content.get("token")
        return token if isinstance(token, dict) else None

    def save(self, token: Mapping[str, Any]) -> None:
        """Save the fields of a token, replacing an earlier token atomically."""
        content = json.dumps({"fingerprint": self.fingerprint, "token": token})
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(draft, "xb", opener=_open_private) as file:
                file.write(self.cipher.encrypt(content.encode()))
            draft.replace(self.path)
        except Exception as error:
            self._warn("written", error)
            with suppress(OSError, ValueError):
                draft.unlink()

    def delete(self, value: str) -> None:
        """Delete the file if it still holds this token, which was rejected."""
        if (token := self.load()) and token.get("value") == value:
            with suppress(OSError, ValueError):
                self.path.unlink()

    def try_lock(self) -> Lock | None:
        """Acquire the lock for requesting a token, without waiting.

        :returns: the lock, or ``None`` while another process holds it.
        """
        lock = Lock()
        try:
            _make_private_folder(self.path.parent)
            path = self.path.with_suffix(".lock")
            descriptor = _open_private(str(path), os.O_CREAT | os.O_RDWR)
            lock = Lock(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            lock.release()
            self._warn("used", error)
        return lock

    def _warn(self, action: str, error: Exception) -> None:
        # The message of a failed decryption may quote what it could not read.
        reason = error if isinstance(error, OSError | RuntimeError) else type(error).__name__
        log.warning(
            "The token cache %s cannot be %s (%s). This process requests its own token from IAM.",
            *(self.path, action, reason),
        )


def token_file(folder: str, cipher: Cipher, identity: str, secret: str) -> TokenFile | None:
    """Return the file of a token; nothing is read or written yet.

    ``None``, after a warning, if the home folder that the path names (``~user``) is not known.

    :param folder: folder of the token cache.
    :param cipher: encryption of the file.
    :param identity: user and scope of the token; their digest is the name of the file.
    :param secret: credentials; only their digest is stored, encrypted.
    """
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    fingerprint = hashlib.sha256(secret.encode()).hexdigest()
    path = Path(folder)
    try:
        path = path.expanduser()
    except RuntimeError as error:
        log.warning("The token cache %s cannot be used (%s).", folder, error)
        return None
    return TokenFile(path / f"{name}.token", fingerprint, cipher)


def _open_private(path: str, flags: int) -> int:
    # Not blocking, since opening a named pipe waits for somebody who writes to it.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def _read_private(path: Path) -> bytes:
    with open(path, "rb", opener=_open_private) as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError("the file belongs to another user, or other users may read it")
        if not stat.S_ISREG(status.st_mode) or status.st_size > _SIZE_LIMIT:
            raise OSError("it is no file of a token")
        return file.read(_SIZE_LIMIT)


def _make_private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise PermissionError("the folder belongs to another user, or other users may write to it")
