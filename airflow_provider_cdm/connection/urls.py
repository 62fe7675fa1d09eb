"""Checks of the addresses in a connection. No message quotes them: they may hold a password."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit


def split(url: str) -> SplitResult:
    """Split a URL; one that cannot be split has no parts."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def http_host(parts: SplitResult) -> str | None:
    """Return the host of an http or https address; ``None`` if it is none."""
    try:
        usable = parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        usable = False
    host = parts.hostname or ""
    return host if usable and re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host) else None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_plain(url: str) -> bool:
    """Return whether a URL holds only the characters that a URL may hold."""
    return url.isascii() and url.isprintable() and not re.search(r'[\s"<>\\^`]', url)
