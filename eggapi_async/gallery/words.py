"""Text, addresses and times, as the page holds them."""

from __future__ import annotations

import html
import re
from urllib.parse import quote

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: str) -> str:
    """*text* for an element or a quoted attribute; what no page may hold becomes `�`."""
    return html.escape(_NO_TEXT.sub("\ufffd", text))


def address(path: str) -> str:
    """*path* as a relative address: nothing in it is taken for a scheme, a query or a fragment."""
    return quote(path, safe="/", errors="surrogateescape")


def seconds(duration: float) -> str:
    """`7.9 s`, `12 min 40 s`."""
    if round(duration, 1) < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest} s"
