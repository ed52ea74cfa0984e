"""Signatures of webhook deliveries: made, and checked.

The service signs `{timestamp}.{raw body}` by HMAC-SHA256 with the webhook secret, and sends the hex
digest after `sha256=`. The bytes are signed as they went over the wire: a body that was parsed and
dumped again is another one. Formats are strict and checked before anything is used, and digests
are compared as bytes, in constant time. No I/O, no clock.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import attrs

SIGNATURE: Final = "X-EggAPI-Signature"
TIMESTAMP: Final = "X-EggAPI-Timestamp"

_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")

Flaw = Literal["unsigned", "malformed", "forged", "stale", "future"]
"""What can be wrong with the signature of a delivery."""


def sign(body: bytes, *, timestamp: str, secret: bytes) -> str:
    """The signature header of *body*; *timestamp* is the other header's text."""
    message = timestamp.encode() + b"." + body
    return "sha256=" + hmac.new(secret, message, hashlib.sha256).hexdigest()


@attrs.frozen
class Stamp:
    """The two headers of a signed delivery, in their strict formats."""

    signature: str
    timestamp: str


def read_stamp(headers: object) -> Stamp | Flaw:
    """The stamp in *headers*, any mapping or pairs of text or bytes; or what is wrong with it."""
    try:
        several = _pairs(headers)
        signature, timestamp = _one(several, SIGNATURE), _one(several, TIMESTAMP)
    except Exception:  # a foreign mapping may raise anything
        return "malformed"
    if signature is None:
        return "unsigned"
    if not _SIGNATURE.fullmatch(signature) or not _TIMESTAMP.fullmatch(timestamp or ""):
        return "malformed"
    return Stamp(signature, str(timestamp))


def verify(
    body: bytes, stamp: Stamp, *, secrets: Sequence[bytes], now: float, tolerance: float
) -> Flaw | None:
    """What is wrong with a delivery, or None: signed by one of *secrets*, and not at another time.

    "stale" and "future" are said of good signatures only: made more than *tolerance* seconds from
    *now*, in unix seconds.
    """
    claimed = stamp.signature.encode()
    expected = [sign(body, timestamp=stamp.timestamp, secret=secret) for secret in secrets]
    matches = [hmac.compare_digest(claimed, one.encode()) for one in expected]
    if not any(matches):
        return "forged"
    age = now - int(stamp.timestamp)
    if abs(age) <= tolerance:
        return None
    return "stale" if age > 0 else "future"


class Hidden(bytes):
    """A secret that no repr shows, so that no traceback with locals does."""

    def __repr__(self) -> str:
        return "<secret ***>"

    __str__ = __repr__


def usable_secrets(secret: object) -> tuple[bytes, ...]:
    """*secret*, one or several, as bytes; none at all where one of them is blank or no text."""
    several = secret if isinstance(secret, (list, tuple)) else (secret,)
    try:
        found = [one.encode() if isinstance(one, str) else one for one in several]
    except UnicodeEncodeError:
        return ()
    is_usable = all(isinstance(one, bytes) and one.strip() for one in found)
    return tuple(map(Hidden, found)) if is_usable else ()


def _pairs(headers: Any) -> list[tuple[str, str]]:
    pairs = headers.items() if hasattr(headers, "items") else headers
    return [
        (_plain(_text(name)), _text(value))
        for name, values in pairs
        for value in (values if isinstance(values, (list, tuple)) else [values])
    ]


def _one(pairs: Iterable[tuple[str, str]], name: str) -> str | None:
    """The header's only value; None where it is missing. Raises ValueError where there are more."""
    values = {value for each, value in pairs if each == name.lower()}
    if len(values) > 1:
        raise ValueError(f"more than one {name}")
    return values.pop() if values else None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _plain(name: str) -> str:
    """A header's name in lower case; WSGI and its heirs write `HTTP_X_EGGAPI_SIGNATURE`."""
    return name.lower().replace("_", "-").removeprefix("http-")
