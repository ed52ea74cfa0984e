"""The key appears nowhere: no repr, log, traceback, pickle or URL has it, and one origin gets it.

A canary is sent through successes and failures of every kind over real sockets, and looked for in
all that could be shown to somebody.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import attrs
import httpx
import pytest

from eggapi_async import AsyncEggClient, ConfigurationError, EggError, RateLimiter, RetryPolicy
from eggapi_async._wire import ApiKey
from tests.scripted import KEY, accepted, client_of, data, error, task
from tests.wire import (
    Received,
    Step,
    Wire,
    answer,
    close,
    cut,
    half_status,
    html_answer,
    json_answer,
    raw,
    refusing_port,
    reset,
    silence,
)

ONCE = RetryPolicy(max_attempts=1)
LIBRARIES = ("httpx", "httpcore", "eggapi_async", "asyncio", "h2", "hpack")


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception, and all that it came from or was raised during."""
    found: list[BaseException] = []
    waiting = [exc]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in found):
            continue
        found.append(one)
        waiting += [one.__cause__, one.__context__]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
    yield from found


def frames(trace: TracebackType | None) -> Iterator[FrameType]:
    """The frames of a traceback that are not a test's own."""
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).parent != Path(__file__).parent:
            yield trace.tb_frame
        trace = trace.tb_next


def shown(exc: BaseException) -> str:
    """Everything that any tool could show of an error."""
    texts: list[str] = []
    for one in chain(exc):
        texts += [str(one), repr(one), repr(one.args), repr(vars(one))]
        for frame in frames(one.__traceback__):
            texts += [f"{name}={_repr(value)}" for name, value in frame.f_locals.items()]
            texts += [_repr(vars(value)) for value in frame.f_locals.values() if _is_plain(value)]
    texts += _rendered(exc)
    if isinstance(exc, EggError):
        texts += [repr(pickle.dumps(exc)), repr(vars(pickle.loads(pickle.dumps(exc))))]
    return "\n".join(texts)


def _rendered(exc: BaseException) -> list[str]:
    try:
        rendered = traceback.TracebackException.from_exception(exc, capture_locals=True)
    except AttributeError:  # Python 3.11 gives up on an object that is half made
        return []
    return list(rendered.format())


def _repr(value: object) -> str:
    """As tools that render tracebacks do it: an object that is half made may have none."""
    try:
        return repr(value)
    except Exception as exc:
        return f"<unprintable: {exc}>"


def _is_plain(value: object) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, (ApiKey, type))


FAILURES: dict[str, Step] = {
    "closed": close(),
    "reset": reset(),
    "silence": silence(),
    "half a status line": half_status(),
    "cut": cut(b'{"data": {"id'),
    "no HTTP at all": raw(b"garbage\r\n\r\n", then=close()),
    "401": json_answer(error("UNAUTHORIZED", "the key is wrong"), 401),
    "403": json_answer(error("FORBIDDEN"), 403),
    "429 for a day": json_answer(error("RATE_LIMITED"), 429, **{"Retry-After": "86400"}),
    "500": json_answer(error("INTERNAL_ERROR"), 500),
    "502 as a page": html_answer(502),
    "202 as a page": html_answer(202),
    "202 without an id": json_answer(data({}), 202),
    "302": answer(302, {"Location": "https://elsewhere.example/"}),
    "a proxy that echoes the request": html_answer(502, f"<pre>Authorization: Bearer {KEY}</pre>"),
    "an error that quotes the key": json_answer(error("UNAUTHORIZED", f"no such key: {KEY}"), 401),
    "nonsense that quotes the key": answer(202, body=f'{{"data": "{KEY}"}}'.encode()),
    "a long answer that quotes the key": answer(200, body=KEY.encode() * 300_000),
    "a cut answer that quotes the key": cut(f'{{"data": "{KEY}'.encode()),
}

CALLS: dict[str, Callable[[AsyncEggClient], Awaitable[Any]]] = {
    "a submission": lambda egg: egg.generate("An egg"),
    "a read": lambda egg: egg.get_task("gen_1"),
}


@pytest.mark.real_time
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_no_failure_shows_the_key(
    failure: Step,
    call: Callable[[AsyncEggClient], Awaitable[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not by its text, its causes, its frames' locals, its pickle, nor by any log at DEBUG."""
    for name in LIBRARIES:
        caplog.set_level(logging.DEBUG, name)
    with Wire([failure]) as server:
        timeout = 0.5 if failure is FAILURES["silence"] else 30.0
        async with client_of(server, timeout=timeout, retry=ONCE) as egg:
            caught = await failed(call(egg))
            assert KEY not in reachable(egg)
    assert KEY not in shown(caught)
    assert caplog.records
    assert KEY not in caplog.text
    assert all(KEY not in repr(vars(record)) for record in caplog.records)


@pytest.mark.real_time
async def test_a_header_that_quotes_the_key_is_not_shown_by_the_error() -> None:
    """Only a log of headers as they came could show it, which the service has then written."""
    echo = json_answer(error("FORBIDDEN"), 403, **{"X-Request-Id": f"for {KEY}"})
    with Wire([echo]) as server:
        async with client_of(server, retry=ONCE) as egg:
            caught = await failed(egg.get_task("gen_1"))
    assert KEY not in shown(caught)
    assert getattr(caught, "request_id", None) == "for ***"


async def failed(call: Awaitable[Any]) -> EggError:
    """The error that a call ends with."""
    with pytest.raises(EggError) as caught:
        await call
    return caught.value


@pytest.mark.real_time
async def test_a_refused_connection_does_not_show_the_key() -> None:
    """Neither does a failure before anything was sent."""
    with refusing_port() as port:
        async with client_of(f"http://127.0.0.1:{port}", retry=ONCE) as egg:
            assert KEY not in shown(await failed(egg.generate("An egg")))


@pytest.mark.real_time
async def test_no_success_shows_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """What works is logged as well, and has the key in its headers."""
    for name in LIBRARIES:
        caplog.set_level(logging.DEBUG, name)
    with Wire([accepted(), json_answer(data(task()))]) as server:
        async with client_of(server) as egg:
            bought = await egg.generate("An egg")
            seen = await bought.refresh()
            assert KEY not in reachable(egg) + reachable(bought) + reachable(seen)
            assert KEY.encode() not in pickle.dumps(seen)
    assert {record.name.partition(".")[0] for record in caplog.records} >= {
        "eggapi_async",
        "httpcore",
    }
    assert KEY not in caplog.text
    assert [request.headers["authorization"] for request in server.requests] == [
        f"Bearer {KEY}"
    ] * 2


def reachable(root: object) -> str:
    """What the package's own objects that can be reached from here show of themselves."""
    texts: list[str] = []
    seen: set[int] = set()
    waiting: list[object] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, FrameType)):
            continue
        seen.add(id(one))
        if type(one).__module__.startswith("eggapi_async"):
            texts += [repr(one), str(one), f"{one}", ascii(one)]
        if not isinstance(one, ApiKey):
            waiting += [other for other in gc.get_referents(one) if _is_ours(other)]
    assert texts
    return "\n".join(texts)


def _is_ours(value: object) -> bool:
    ours = type(value).__module__.startswith(("eggapi_async", "httpx"))
    return ours or isinstance(value, (dict, list, tuple, set))


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.example",
        "ftp://elsewhere.example",
        "https://user:password@elsewhere.example",
        "https://elsewhere.example?key=1",
        "nonsense",
    ],
)
def test_a_bad_base_url_does_not_show_the_key(url: str) -> None:
    """A client that cannot be made keeps the key to itself."""
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(KEY, base_url=url)
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize("flaw", ["\n", " ", "é", "\r\nX: y"], ids=ascii)
def test_a_broken_key_is_not_quoted(flaw: str) -> None:
    """A key with a flaw is still most of a key."""
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(KEY + flaw)
    assert KEY not in str(caught.value)
    rendered = traceback.TracebackException.from_exception(caught.value)
    assert KEY not in "".join(line for line in rendered.format() if "AsyncEggClient(" not in line)


@pytest.mark.parametrize("flaw", ["\n", " ", "é", "\r\nX: y"], ids=ascii)
def test_a_broken_key_is_in_no_local_of_a_traceback(flaw: str) -> None:
    """Nor do tools that show the locals show it."""
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(KEY + flaw)
    for frame in frames(caught.value.__traceback__):
        assert all(KEY not in _repr(value) for value in frame.f_locals.values())


def test_a_client_that_was_refused_can_be_shown() -> None:
    """A traceback with locals calls the repr of an object that is half made."""
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient(KEY, base_url="nonsense")
    for frame in frames(caught.value.__traceback__):
        assert KEY not in repr(frame.f_locals)


def test_a_key_from_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no difference where the key comes from."""
    monkeypatch.setenv("EGGAPI_API_KEY", f" {KEY}\n")
    egg = AsyncEggClient()
    assert KEY not in reachable(egg)
    monkeypatch.setenv("EGGAPI_API_KEY", f"{KEY} {KEY}")
    with pytest.raises(ConfigurationError) as caught:
        AsyncEggClient()
    assert KEY not in shown(caught.value)


def test_a_client_cannot_be_pickled_with_its_key() -> None:
    """An object that would carry the key elsewhere is refused."""
    with pytest.raises(TypeError):
        pickle.dumps(AsyncEggClient(KEY)._engines.transport._key)


@pytest.mark.real_time
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_redirect_does_not_lead_the_key_elsewhere(
    status: int, call: Callable[[AsyncEggClient], Awaitable[Any]]
) -> None:
    """No redirect of an API call is followed, whatever its status."""
    with Wire([]) as elsewhere, Wire([answer(status, {"Location": elsewhere.url})]) as server:
        async with client_of(server, retry=ONCE) as egg:
            await failed(call(egg))
    assert (elsewhere.connections, len(server.requests)) == (0, 1)


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


@pytest.mark.real_time
async def test_a_download_carries_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither to where the picture is said to be, nor to where that leads."""
    caplog.set_level(logging.DEBUG)

    def storage(request: Received) -> Step:
        if request.path == "/first":
            return answer(302, {"Location": "/second"})
        return answer(200, {"Content-Type": "image/png"}, PNG)

    with Wire(storage) as cdn, Wire([json_answer(data(task(status="completed")))]) as server:
        async with client_of(server) as egg:
            done = attrs.evolve(
                await egg.get_task("gen_1"), urls=(cdn.url + "/first",), url=cdn.url + "/first"
            )
            await egg.download(done, tmp_path)
    assert [request.path for request in cdn.requests] == ["/first", "/second"]
    assert KEY not in repr(cdn.requests)
    assert all("authorization" not in request.headers for request in cdn.requests)
    assert KEY not in caplog.text


@pytest.mark.real_time
async def test_the_key_is_not_left_on_a_client_of_the_callers_own() -> None:
    """It is put on each request, not on the client that sends it."""
    with Wire([accepted()]) as server:
        async with httpx.AsyncClient(trust_env=False) as http:
            await client_of(server, http_client=http).generate("An egg")
            assert KEY not in repr(http.headers.raw) + repr(vars(http))
            assert http.auth is None
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.real_time
async def test_a_cancelled_submission_does_not_show_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cancellation has frames too, and a warning when its answer did not come."""
    caplog.set_level(logging.DEBUG)
    with Wire([silence()]) as server:
        async with client_of(server, timeout=0.2, limiter=RateLimiter(1, None)) as egg:
            call = asyncio.ensure_future(egg.generate("An egg"))
            await server.wait_for(lambda it: it.requests)
            call.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await call
    assert KEY not in shown(caught.value)
    assert "lost" in caplog.text
    assert KEY not in caplog.text
