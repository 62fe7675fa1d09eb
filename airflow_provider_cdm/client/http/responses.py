"""Responses that are bounded in size, and whose end is clear, whatever the other side sends.

``http.client`` and urllib3 have no limits for the length of a response. The classes here add them
below, where no way of parsing escapes them.
"""

from __future__ import annotations

import http.client
import io
import re
from typing import Any

import urllib3.exceptions
import urllib3.util.response

#: Longest line that is read, in bytes, as in ``http.client``.
LINE_LIMIT = 64 * 1024
#: Most bytes that are read from the connection for one response, headers included.
RESPONSE_LIMIT = 9 * 1024 * 1024


class _CountedIO(io.RawIOBase):
    """Reads from a socket until a number of bytes is exceeded."""

    def __init__(self, raw: io.RawIOBase, limit: int) -> None:
        self._raw = raw
        self._limit = self._left = limit

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        number: int | None = self._raw.readinto(buffer)
        self._left -= number or 0
        if self._left < 0:
            raise http.client.HTTPException(f"the response is longer than {self._limit} bytes")
        return number

    def close(self) -> None:
        self._raw.close()
        super().close()


class _BoundedReader(io.BufferedReader):
    """Reads a response; in a chunked body, a line is the length of a chunk, or a trailer."""

    in_chunked_body = False

    def readline(self, size: int | None = -1, /) -> bytes:
        # urllib3 before 2.8 reads the line in front of a chunk without a limit.
        line = super().readline(LINE_LIMIT if size is None or size < 0 else size)
        # int() also accepts signs, "0x", "_" and blanks. A negative length means "all there is".
        if self.in_chunked_body and re.match(rb"\s*[-+]|\s*0[xX]|\s*\w*_|[ \t]+\w", line):
            raise http.client.HTTPException("the length of a chunk is not a hexadecimal number")
        return line


class BoundedResponse(http.client.HTTPResponse):
    """A response of which no part is longer than a limit, and whose end is clear."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _BoundedReader(_CountedIO(self.fp.detach(), RESPONSE_LIMIT))

    def begin(self) -> None:
        """Read status and headers of the answer; interim answers before it are skipped."""
        super().begin()
        # http.client knows 100 only, and would leave the answer itself for the next request.
        while 100 < self.status < 200:
            if self.status == http.client.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("the server changes to another protocol")
            response: Any = self
            response.headers = response.msg = None
            super().begin()
        _check_headers(self.msg)
        if isinstance(self.fp, _BoundedReader):
            self.fp.in_chunked_body = bool(self.chunked)


def _check_headers(headers: http.client.HTTPMessage) -> None:
    """Check that it is clear where the response ends.

    :raises http.client.HTTPException: when it is not; the error does not quote the headers.
    """
    try:
        urllib3.util.response.assert_header_parsing(headers)
    except urllib3.exceptions.HeaderParsingError:
        # urllib3 would log what it could not read, and go on without all headers that follow.
        raise http.client.HTTPException("its headers cannot be read") from None
    lengths = {part.strip() for part in ",".join(headers.get_all("content-length", ())).split(",")}
    # int() also accepts signs, "_" and blanks; what it does not accept would be no length at all.
    if any(re.fullmatch("[0-9]{0,19}", length) is None for length in lengths):
        raise http.client.HTTPException("the length of the body is not a number")
    coding = ",".join(headers.get_all("transfer-encoding", ())).strip().lower()
    if coding not in ("", "chunked", "identity"):
        raise http.client.HTTPException("its transfer encoding is not known")
