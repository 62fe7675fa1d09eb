"""What logs have to mask of a token, so that nobody can use what is left of it.

Airflow's masker makes one regular expression of all that it masks, again for every secret, in the
process of the task and in its supervisor. For a token of IAM, of 8,000 characters, that takes
longer than the call that the token is for, and every line of the log is compared with all of it.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from airflow_provider_cdm.client.text import base64_parts

#: Longest token that is masked as a whole, in characters.
_SHORT = 100
#: Length of a piece, in characters. Each holds 95 bits, which nobody guesses. The masker takes time
#: for every character.
_PIECE = 16
#: How far from the end of a token pieces are looked for, in characters.
_END = 1_000
#: Two pieces; preferably of characters that no encoding of text changes.
_RUNS = [re.compile(f"{kind}{{{2 * _PIECE}}}") for kind in ("[A-Za-z0-9]", ".")]
#: Fewest different characters of such a run; in padding there are fewer.
_FEWEST = 12


def texts_to_mask(token: str) -> list[str]:
    """Return the texts that logs have to mask.

    Two pieces near the end of a token are enough. That is where its signature is, which nobody can
    compute or guess, and without which no service accepts the token. They are side by side, so
    that a line break, which hides one of them from the masker, leaves the other. They are masked as
    they are, which is also how they look in URLs, JSON and HTML, and one of them as Base64 and
    hexadecimal: the masker compiles all that it knows again for each text. So the short ones come
    first.

    :param token: value of the header ``X-Auth-Token``.
    """
    pieces = _pieces(token)
    spelled = (each for piece in pieces for each in (piece, quote(piece), quote(piece, safe="")))
    content = pieces[-1].encode("utf-8", "replace")
    return sorted({*spelled, *base64_parts(content), content.hex()}, key=len)


def _pieces(token: str) -> list[str]:
    if len(token) > _SHORT:
        for run in _RUNS:
            for end in range(len(token), max(len(token) - _END, 2 * _PIECE), -1):
                found = token[end - 2 * _PIECE : end]
                if run.fullmatch(found) and len(set(found)) >= _FEWEST:
                    return [found[:_PIECE], found[_PIECE:]]
    return [token]
