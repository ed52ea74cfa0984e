"""Verification under any input: it raises `WebhookVerificationError` or accepts what is genuine.

Every input is made from a genuine delivery by a few random changes: bytes flipped, cut, doubled;
headers renamed, repeated, of other types; secrets, times and tolerances of any type; and bodies
that are signed well but say nonsense. The rule: nothing else is ever raised, and what is accepted
carries a signature that the page's own function accepts, too.

The tests run it small. At its full size it is a program: `python -m tests.webhook_fuzz [inputs]`.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from eggapi_async import WebhookEvent, WebhookVerificationError, sign_webhook, verify_webhook
from tests.deliveries import NOW, SECRET, body_of, published_verify

FULL: Final = 1_000_000
SIGNATURE, TIMESTAMP = "X-EggAPI-Signature", "X-EggAPI-Timestamp"
published = published_verify()


class Hostile:
    """An object that raises whatever is done with it."""

    def _fail(self, *_: Any) -> Any:
        raise RuntimeError("hostile")

    items = __iter__ = __len__ = __bool__ = __str__ = __repr__ = __eq__ = _fail
    __hash__ = object.__hash__


ODDITIES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 10**400, 1.5, float("nan"), float("inf"), "", " ", "\ud800", "é" * 70,
    "\x00", b"", b"\xff", bytearray(b"x"), memoryview(b"x"), (), [], {}, set(), object(), Hostile(),
    [[]], [Hostile()], {None: None}, [(1, 2)], [("a",)], {"a": [Hostile()]}, lambda: None, range(3),
    datetime(1, 1, 1), datetime(9999, 12, 31), datetime.fromtimestamp(NOW, UTC),  # noqa: DTZ001
    NotImplemented, type,
)  # fmt: skip

NONSENSE: Final = (
    b"", b"null", b"[]", b"{}", b"1e999", b"NaN", b"[" * 3000, b'{"event":' * 2000,
    b"\xef\xbb\xbf{}",
    b'{"event": "x", "task_id": "\\ud800"}', b'{"event": "\\ud83d", "task_id": "a"}',
    b'{"n": ' + b"9" * 5000 + b"}", b'{"event": "e", "task_id": "t", "event": 1}',
    b"\xff\xfe{\x00}",
)  # fmt: skip
VALUES: Final = (
    "null", "true", "0", "-1", "1e400", '""', '"x"', '"\\ud800"', "[]", "{}", "[[1]]", '{"url": 7}',
    '{"urls": [null, 7, "x"]}', '"9" ', "9" * 30, '"gen_a/../b"', '"' + "g" * 300 + '"',
)  # fmt: skip


@attrs.define
class Input:
    """The arguments of one verification."""

    body: Any
    headers: Any
    secret: Any = SECRET
    now: Any = NOW
    tolerance: Any = 300.0
    allow_unsigned: bool = False


def genuine(dice: random.Random) -> Input:
    """What the service sends, or would if it lost its mind; signed well in either case."""
    body = body_of(f"gen_{dice.randrange(10**6)}", dice.choice(["task.completed", "task.failed"]))
    if dice.random() < 0.3:
        body = dice.choice(NONSENSE)
    elif dice.random() < 0.5:
        name = dice.choice(["event", "task_id", "status", "model", "output", "error", "cost"])
        body = b'{"x": 1, "%s": %s, %s' % (name.encode(), dice.choice(VALUES).encode(), body[1:])
    if dice.random() < 0.2:
        body = mutated(body, dice)
    return Input(body, sign_webhook(body, SECRET, now=NOW))


def mutated(text: bytes, dice: random.Random) -> bytes:
    """*text* with some bytes flipped, cut out, doubled or put in."""
    changed = bytearray(text)
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(changed) + 1)
        kind = dice.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del changed[place : place + dice.randrange(1, 5)]
        elif kind == 2:
            changed[place:place] = changed[place : place + 3]
        else:
            changed[place:place] = dice.randbytes(dice.randrange(4))
    return bytes(changed)


def _body(given: Input, dice: random.Random) -> None:
    is_odd = dice.random() < 0.2 or type(given.body) is not bytes
    given.body = dice.choice(ODDITIES) if is_odd else mutated(given.body, dice)


def _header(given: Input, dice: random.Random) -> None:
    name = dice.choice([SIGNATURE, TIMESTAMP])
    value = given.headers.get(name)
    text = value.encode("latin-1", "replace") if isinstance(value, str) else b"sha256="
    kind = dice.randrange(5)
    if kind == 0:
        given.headers[name] = dice.choice(ODDITIES)
    elif kind == 1:
        given.headers[name.lower()] = mutated(text, dice).decode("latin-1")
    elif kind == 2:
        given.headers[name.swapcase()] = given.headers.pop(name, "")
        given.headers[name] = text
    elif kind == 3:
        given.headers[name] = mutated(text, dice)
    else:
        given.headers[name] = [value, dice.choice(ODDITIES)]


def _headers(given: Input, dice: random.Random) -> None:
    kind = dice.randrange(4)
    pairs = list(given.headers.items())
    if kind == 0:
        given.headers = dice.choice(ODDITIES)
    elif kind == 1:
        given.headers = [*pairs, dice.choice(ODDITIES)]
    elif kind == 2:
        given.headers = [(str(name).encode(), value) for name, value in pairs]
    else:
        given.headers = dict(pairs[: dice.randrange(3)])


def _option(given: Input, dice: random.Random) -> None:
    name = dice.choice(["secret", "now", "tolerance", "allow_unsigned"])
    odd = dice.choice(ODDITIES)
    setattr(given, name, dice.random() < 0.5 if name == "allow_unsigned" else odd)


CHANGES: Final[tuple[Callable[[Input, random.Random], None], ...]] = (_body, _header, _option)


def some_input(dice: random.Random) -> Input:
    """A genuine delivery after up to three changes; its headers as a whole change last."""
    given = genuine(dice)
    for _ in range(dice.randrange(4)):
        dice.choice(CHANGES)(given, dice)
    if dice.random() < 0.1:
        _headers(given, dice)
    return given


def judged(given: Input) -> str:
    """What became of an input: `accepted`, or the reason of its refusal."""
    options = {"now": given.now, "tolerance": given.tolerance}
    try:
        event = verify_webhook(
            given.body,
            given.headers,
            given.secret,
            allow_unsigned=given.allow_unsigned,
            **options,
        )
    except WebhookVerificationError as error:
        str(error)
        return error.reason
    assert isinstance(event, WebhookEvent)
    assert not event.is_trusted or is_genuine(given), given
    return "accepted" if event.is_trusted else "a hint"


def is_genuine(given: Input) -> bool:
    """True when the page's own function accepts the body with a signature and a time among all
    the values of the headers."""
    pairs = given.headers.items() if hasattr(given.headers, "items") else given.headers
    texts = {text for _, values in pairs for text in _texts(values) if text.isascii()}
    body = bytes(given.body).decode()
    return any(published(one, other, body, SECRET) for one in texts for other in texts)


def _texts(values: Any) -> list[str]:
    several = values if isinstance(values, (list, tuple)) else [values]
    return [
        value.decode("latin-1") if isinstance(value, bytes) else value
        for value in several
        if isinstance(value, (str, bytes))
    ]


def fuzz(inputs: int, *, seed: int = 0) -> Counter[str]:
    """Try so many inputs; what became of them, counted. Raises what verification must not."""
    dice = random.Random(seed)
    return Counter(judged(some_input(dice)) for _ in range(inputs))


def main(inputs: int = FULL) -> None:
    """Run it and write what came of it."""
    seed = random.SystemRandom().randrange(1 << 32)
    began = time.monotonic()
    counts = fuzz(inputs, seed=seed)
    sys.stdout.write(f"seed {seed}: {inputs:,} inputs in {time.monotonic() - began:.0f} s\n")
    for reason, count in counts.most_common():
        sys.stdout.write(f"  {count:>9,} {reason}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
