"""Keeps the key out of another library's log: hpack's, which a caller's HTTP/2 client may use.

At DEBUG its older versions write each header down as it is encoded, the key's too, and all write
the encoded block, from which it can be read. Our own connections speak HTTP/1.1, and httpx and
httpcore do not show it.
"""

from __future__ import annotations

import logging
from typing import Final

_SECRET: Final = ((b"authorization",), ("authorization",))
"""How a pair of name and value begins that is not to be shown."""


def _is_discreet(record: logging.LogRecord) -> bool:
    """False for a record that shows the key, or what it can be read from."""
    if str(record.msg).startswith("Encoded header block"):
        return False
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(isinstance(one, tuple) and one[:1] in _SECRET for one in arguments)


def be_discreet() -> None:
    """From now on. Safe to repeat."""
    logging.getLogger("hpack.hpack").addFilter(_is_discreet)
