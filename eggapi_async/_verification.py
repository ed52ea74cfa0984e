"""Whether a webhook is genuine, as one call: bytes and headers in, a typed event out.

Its rule: whatever the input, there is an event or a `WebhookVerificationError`. The clock is an
argument; this machine's own is the default.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from ._events import WebhookEvent, read_event
from ._signing import SIGNATURE, TIMESTAMP, Stamp, read_stamp, sign, usable_secrets, verify
from .errors import ConfigurationError, WebhookVerificationError

MAX_BODY: Final = 1 << 20
"""Bytes of a delivery's body; the service's have less than a thousand."""

PROBLEMS: Final[Mapping[str, str]] = {
    "unsigned": f"there is no {SIGNATURE} header: the service signs once a webhook secret has been"
    " generated in its dashboard",
    "malformed": f"expected one {TIMESTAMP} of digits and one {SIGNATURE} of sha256=HEX",
    "forged": "the signature is not that of this body and time with any of the secrets",
    "stale": "it is signed, but older than the tolerance",
    "future": "it is signed, but by a clock that is ahead of this one",
}


Secret = str | bytes | Sequence[str | bytes]


def verify_webhook(
    body: bytes,
    headers: object,
    secret: Secret | None,
    *,
    now: float | datetime | None = None,
    tolerance: float = 300.0,
    allow_unsigned: bool = False,
) -> WebhookEvent:
    """The event that a delivery carries, if it is genuine.

    *body* is what came over the wire, in bytes: text, or JSON that was parsed, no longer shows what
    was signed. *headers* is any framework's mapping, or pairs; names in any case. *secret* is the
    webhook secret of the service's dashboard, or a list of several while one is replaced. *now* in
    unix seconds, else this machine's clock; deliveries made more than *tolerance* seconds before or
    after are refused. *allow_unsigned* lets deliveries without a signature pass, as hints.

    Raises WebhookVerificationError, and nothing else whatever the input; see its `reason`.
    """
    secrets = usable_secrets(secret)
    del secret  # so that no traceback with locals can show it
    if not isinstance(body, (bytes, bytearray)):
        problem = f"expected the raw body in bytes, got {type(body).__name__}"
        raise WebhookVerificationError(problem, reason="not_bytes")
    if len(body) > MAX_BODY:
        raise WebhookVerificationError(f"a body of over {MAX_BODY} bytes", reason="too_large")
    if not secrets and allow_unsigned is not True:
        problem = "expected a webhook secret, or several, none of them empty"
        raise WebhookVerificationError(problem, reason="no_secret")
    stamp = read_stamp(headers)
    if isinstance(stamp, Stamp):
        return _signed(bytes(body), stamp, secrets, now=_unix(now), tolerance=_span(tolerance))
    if stamp == "unsigned" and allow_unsigned is True:
        return attrs.evolve(_read(bytes(body)), is_trusted=False)
    raise WebhookVerificationError(PROBLEMS[stamp], reason=stamp)


def _signed(
    body: bytes, stamp: Stamp, secrets: tuple[bytes, ...], *, now: float, tolerance: float
) -> WebhookEvent:
    flaw = verify(body, stamp, secrets=secrets, now=now, tolerance=tolerance)
    if flaw is None:
        return _read(body)
    is_authentic = flaw in ("stale", "future")
    event = attrs.evolve(_read(body), is_trusted=False) if is_authentic else None
    raise WebhookVerificationError(PROBLEMS[flaw], reason=flaw, event=event)


def _read(body: bytes) -> WebhookEvent:
    try:
        return read_event(body)
    except ValueError as problem:
        raise WebhookVerificationError(str(problem), reason="unreadable") from None


def _unix(now: object) -> float:
    try:
        seconds = now.timestamp() if isinstance(now, datetime) else now
    except (ValueError, OverflowError):  # the ends of the calendar
        seconds = math.nan
    if seconds is None:
        return time.time()
    if not isinstance(seconds, (int, float)) or not abs(seconds) < 1e12:
        raise WebhookVerificationError("now: expected unix seconds", reason="misused")
    return seconds


def _span(tolerance: object) -> float:
    if not isinstance(tolerance, (int, float)) or not tolerance >= 0:
        raise WebhookVerificationError("tolerance: expected seconds from 0", reason="misused")
    return tolerance


def sign_webhook(
    body: bytes, secret: str | bytes, *, now: float | datetime | None = None
) -> dict[str, str]:
    """The headers that the service would send with *body*, for tests of your own.

    Raises ConfigurationError where there is no secret.
    """
    secrets = usable_secrets(secret)
    if not secrets:
        raise ConfigurationError("secret: expected text that is not empty")
    timestamp = str(int(_unix(now)))
    signature = sign(body, timestamp=timestamp, secret=secrets[0])
    return {"Content-Type": "application/json", TIMESTAMP: timestamp, SIGNATURE: signature}
