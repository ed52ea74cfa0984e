"""Answers as no service should give them: a value or a documented error, and little memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final

import httpx
import pytest

from eggapi_async import AsyncEggClient, EggError, RetryPolicy, SubmissionUncertainError
from tests.odd_answers import bombs, peak, read_odd
from tests.virtual_time import run_virtual

Ask = Callable[[AsyncEggClient], Awaitable[Any]]


async def _usage(egg: AsyncEggClient) -> None:
    async for _ in egg.usage():
        break


ASKS: Final[dict[str, Ask]] = {
    "a submission": lambda egg: egg.generate("An egg"),
    "a task": lambda egg: egg.get_task("gen_1"),
    "a list": lambda egg: egg.tasks_page(),
    "the usage": _usage,
    "the summary": lambda egg: egg.usage_summary(),
}
BOMBS: Final = {name: (body, headers) for name, body, headers in bombs()}


@pytest.mark.parametrize("seed", range(3))
def test_odd_bodies_are_a_value_or_a_documented_error(seed: int) -> None:
    """A thousand each, by every endpoint; what comes can be printed, stored and pickled."""
    ends = read_odd(1000, seed=seed)

    assert ends["a value"] > 100
    assert ends["UnexpectedResponseError"] > 1000
    assert ends.total() == 5000


class _Body(httpx.AsyncByteStream):
    """What comes from a network, in pieces."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 65_536):
            yield self._body[start : start + 65_536]


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(("body", "headers"), BOMBS.values(), ids=BOMBS)
def test_bombs_do_no_harm(body: bytes, headers: dict[str, str], status: int) -> None:
    """No endpoint lets a foreign exception out, or takes 20 MB; a lost submission says so."""
    raised: dict[str, EggError] = {}

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers, stream=_Body(body))

    async def ask(name: str) -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        once = RetryPolicy(max_attempts=1)
        async with AsyncEggClient("bomb-key", http_client=http, retry=once) as egg:
            try:
                await ASKS[name](egg)
            except EggError as error:
                raised[name] = error

    for name in ASKS:
        assert peak(partial(run_virtual, ask, name)) < 20.0, name
    assert "a list" in raised, "none of these is a list"
    if "a submission" in raised:
        assert type(raised["a submission"]) is SubmissionUncertainError
