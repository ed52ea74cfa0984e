"""Signatures: made as documented, checked strictly, whatever is given."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import pytest

from eggapi_async._signing import Stamp, read_stamp, sign, usable_secrets, verify
from tests.deliveries import published_verify

BODY = b'{"event": "task.completed", "task_id": "gen_abc123def456"}'
SECRET = b"whsec_canary"
NOW = 1705314690
GOOD = Stamp(sign(BODY, timestamp=str(NOW), secret=SECRET), str(NOW))
HEADERS = {"X-EggAPI-Signature": GOOD.signature, "X-EggAPI-Timestamp": GOOD.timestamp}


def test_the_published_function_accepts_what_is_signed_here() -> None:
    """The same HMAC over `{timestamp}.{raw_body}`, hex, after `sha256=`."""
    assert published_verify()(GOOD.signature, GOOD.timestamp, BODY.decode(), SECRET.decode())


def test_a_known_vector() -> None:
    """HMAC-SHA256 itself, by the vector of RFC 4231 that fits the form (case 2, key `Jefe`)."""
    digest = hmac.new(b"Jefe", b"what do ya want for nothing?", hashlib.sha256).hexdigest()

    assert digest.startswith("5bdcc146bf60754e6a042426089575c7")
    message = hmac.new(b"Jefe", b"7.what do ya want", hashlib.sha256).hexdigest()
    assert sign(b"what do ya want", timestamp="7", secret=b"Jefe") == f"sha256={message}"


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        pytest.param({}, None, id="a genuine delivery is good"),
        pytest.param({"now": NOW + 300}, None, id="at the end of the tolerance it still is"),
        pytest.param({"now": NOW - 300}, None, id="and by a clock that is behind"),
        pytest.param({"now": NOW + 300.5}, "stale", id="after that it is stale"),
        pytest.param({"now": NOW - 300.5}, "future", id="before that it is from the future"),
        pytest.param({"now": NOW + 1, "tolerance": 0}, "stale", id="no tolerance is none"),
        pytest.param({"body": BODY + b" "}, "forged", id="a space more is another body"),
        pytest.param({"secrets": [b"other"]}, "forged", id="another secret signs otherwise"),
        pytest.param({"secrets": [b"old", SECRET]}, None, id="one of several secrets suffices"),
        pytest.param({"secrets": []}, "forged", id="without a secret nothing is genuine"),
        pytest.param(
            {"stamp": Stamp(GOOD.signature, str(NOW + 1))}, "forged", id="the time is signed, too"
        ),
        pytest.param(
            {"stamp": Stamp(GOOD.signature, f"0{NOW}")}, "forged", id="as the text that was sent"
        ),
        pytest.param(
            {"body": BODY + b" ", "now": 0}, "forged", id="a forgery is never merely stale"
        ),
    ],
)
def test_a_delivery_is_judged(changes: dict[str, Any], flaw: str | None) -> None:
    """By its signature first, then by its age."""
    given: dict[str, Any] = {
        "secrets": [SECRET],
        "now": NOW,
        "tolerance": 300,
        "body": BODY,
        "stamp": GOOD,
    }
    given |= changes
    assert verify(given.pop("body"), given.pop("stamp"), **given) == flaw


def test_every_altered_byte_is_noticed() -> None:
    """Of body, timestamp and signature, one bit at a time."""

    def is_good(body: bytes, headers: dict[str, Any]) -> bool:
        stamp = read_stamp(headers)
        if not isinstance(stamp, Stamp):
            return False
        return verify(body, stamp, secrets=[SECRET], now=NOW, tolerance=10**13) is None

    assert is_good(BODY, HEADERS)
    for altered in flipped(BODY):
        assert not is_good(altered, HEADERS)
    for name, text in HEADERS.items():
        for altered in flipped(text.encode()):
            assert not is_good(BODY, {**HEADERS, name: altered})


def flipped(text: bytes) -> Iterator[bytes]:
    """*text* with one bit changed, in every way."""
    for place in range(len(text)):
        for bit in range(8):
            yield text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :]


class Multi:
    """A mapping with several values of a name, as frameworks have them."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = pairs

    def items(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)


RAW: dict[bytes, bytes] = {name.lower().encode(): value.encode() for name, value in HEADERS.items()}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(HEADERS, id="as documented"),
        pytest.param({name.upper(): value for name, value in HEADERS.items()}, id="shouted"),
        pytest.param(list(RAW.items()), id="pairs of bytes, as ASGI has them"),
        pytest.param(RAW, id="a mapping of bytes"),
        pytest.param(lambda: iter(HEADERS.items()), id="an iterator that is used up at once"),
        pytest.param({name: [value] for name, value in HEADERS.items()}, id="lists of values"),
        pytest.param(Multi(*HEADERS.items()), id="a mapping of several values"),
        pytest.param(Multi(*HEADERS.items(), *HEADERS.items()), id="the same ones twice"),
        pytest.param(
            {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS.items()},
            id="a WSGI environment",
        ),
        pytest.param([*HEADERS.items(), (7, 8), ("Accept", None)], id="beside oddities"),
    ],
)
def test_headers_are_read_from_whatever_frameworks_have(headers: object) -> None:
    """Names in any case, text or bytes, mappings or pairs."""
    assert read_stamp(headers() if callable(headers) else headers) == GOOD


def without(name: str, **more: Any) -> dict[str, Any]:
    return {key: value for key, value in HEADERS.items() if key != name} | more


SIGNATURE, TIMESTAMP = "X-EggAPI-Signature", "X-EggAPI-Timestamp"


@pytest.mark.parametrize(
    ("headers", "flaw"),
    [
        pytest.param({}, "unsigned", id="no headers"),
        pytest.param(without(SIGNATURE), "unsigned", id="no signature"),
        pytest.param(without(TIMESTAMP), "malformed", id="no time"),
        pytest.param(None, "malformed", id="nothing at all"),
        pytest.param(7, "malformed", id="no mapping"),
        pytest.param(["ab", "c"], "malformed", id="no pairs"),
        pytest.param({**HEADERS, SIGNATURE: ""}, "malformed", id="an empty signature"),
        pytest.param({**HEADERS, SIGNATURE: None}, "malformed", id="a signature that is no text"),
        pytest.param(
            {**HEADERS, SIGNATURE: GOOD.signature.upper()}, "malformed", id="upper-case hex"
        ),
        pytest.param(
            {**HEADERS, SIGNATURE: GOOD.signature[7:]}, "malformed", id="without the algorithm"
        ),
        pytest.param({**HEADERS, SIGNATURE: GOOD.signature + "\n"}, "malformed", id="a line more"),
        pytest.param({**HEADERS, SIGNATURE: "sha256=" + "é" * 64}, "malformed", id="not ASCII"),
        pytest.param({**HEADERS, TIMESTAMP: f" {NOW}"}, "malformed", id="a space before the time"),
        pytest.param({**HEADERS, TIMESTAMP: f"{NOW}.0"}, "malformed", id="a fraction"),
        pytest.param({**HEADERS, TIMESTAMP: "1_705"}, "malformed", id="digits as Python groups"),
        pytest.param({**HEADERS, TIMESTAMP: "-1"}, "malformed", id="before 1970"),
        pytest.param({**HEADERS, TIMESTAMP: "١٧٠٥"}, "malformed", id="other digits"),
        pytest.param({**HEADERS, TIMESTAMP: "1" * 400}, "malformed", id="far too many digits"),
        pytest.param({**HEADERS, TIMESTAMP: NOW}, "malformed", id="a number that is no text"),
        pytest.param(
            [*HEADERS.items(), (SIGNATURE.lower(), "sha256=" + "0" * 64)],
            "malformed",
            id="two signatures",
        ),
    ],
)
def test_odd_headers_are_told_apart(headers: object, flaw: str) -> None:
    """No signature, or none in the documented form."""
    assert read_stamp(headers) == flaw


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        pytest.param("s", (b"s",), id="a text"),
        pytest.param(b"s", (b"s",), id="bytes"),
        pytest.param(["new", b"old"], (b"new", b"old"), id="several"),
        pytest.param("", (), id="an empty one"),
        pytest.param(" \n", (), id="a blank one"),
        pytest.param(None, (), id="none"),
        pytest.param([], (), id="none of several"),
        pytest.param(["new", ""], (), id="one of several empty"),
        pytest.param([5], (), id="a number"),
        pytest.param(7, (), id="only a number"),
        pytest.param("\ud800", (), id="text that has no bytes"),
    ],
)
def test_only_real_secrets_are_used(secret: object, expected: tuple[bytes, ...]) -> None:
    """A blank one among them makes all of them unusable: somebody forgot to set it."""
    assert usable_secrets(secret) == expected


def test_a_secret_is_not_shown() -> None:
    """Neither by itself nor within others: tracebacks with locals show what reprs say."""
    (secret,) = usable_secrets("whsec_canary")
    assert [str(secret), repr(secret), f"{[secret]}"] == [
        "<secret ***>",
        "<secret ***>",
        "[<secret ***>]",
    ]
