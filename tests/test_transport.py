"""One call and its repetitions: what is sent again, what never is, when, and how long it may take.

Where the wire is the point there are real sockets, otherwise virtual time.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import anyio
import httpx
import pytest
import trustme

from eggapi_async import (
    APIError,
    AsyncEggClient,
    BadRequestError,
    ConnectionFailedError,
    EggError,
    GenerationRequest,
    RateLimitedError,
    RateLimiter,
    RetryPolicy,
    ServerError,
    SubmissionUncertainError,
    UnexpectedResponseError,
)
from eggapi_async import _protocol as protocol
from eggapi_async._lanes import _tls
from eggapi_async._retry import Patience
from eggapi_async._transport import Lost, Transport
from eggapi_async._wire import ApiKey
from eggapi_async._wire import Wire as Door
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.models import Stats
from eggapi_async.testing import connect
from tests.scripted import KEY, accepted, client_of, data, error, task
from tests.virtual_time import on_both, run_virtual
from tests.wire import (
    Step,
    Wire,
    answer,
    close,
    cut,
    drip,
    early_hints,
    half_status,
    html_answer,
    json_answer,
    later,
    raw,
    refusing_port,
    reset,
    silence,
)

# --- a POST that may have been taken is sent once --------------------------------------------

LOST = {
    "the connection is closed after the request": close(),
    "the connection is reset after the request": reset(),
    "no answer comes within the timeout": silence(),
    "the answer comes too late": later(5.0, accepted()),
    "an answer drips": drip(b'{"data": {"id": "gen_1"}}', every=0.05, status=202),
    "hints come, and then nothing": early_hints(silence()),
    "half a status line comes": half_status(),
    "the body is cut under its length": cut(b'{"data": {"id": "gen_1"', status=202),
    "a chunk of the body is cut": cut(b'{"data": {"id": "gen_1"', framing="chunked", status=202),
    "the body is cut without any frame": cut(b'{"data": {"id": "gen', framing="close", status=202),
    "the answer is no HTTP": raw(b"hello\r\n\r\n", then=close()),
    "500 in the API's envelope": json_answer(error("INTERNAL_ERROR"), 500),
    "502 in the API's envelope": json_answer(error("UPSTREAM_ERROR"), 502),
    "502 as a page of a proxy": html_answer(502),
    "503 as a page of a proxy": html_answer(503),
    "503 under another code": json_answer(error("INTERNAL_ERROR"), 503),
    "504 as a page of a proxy": html_answer(504),
    "408 of a proxy": html_answer(408),
    "303 to the answer of work that was done": answer(303, {"Location": "/v1/tasks/gen_1"}),
    "202 without a body": answer(202),
    "202 with a page": html_answer(202),
    "202 without an id": json_answer(data({"status": "pending", "model": "nanobanana"}), 202),
    "202 with an id that is null": json_answer(data(task() | {"id": None}), 202),
    "202 with an error of the service's own": json_answer(error("INTERNAL_ERROR"), 202),
    "202 with a body of nine megabytes": answer(202, body=b" " * 9_000_000),
    "202 with a compressed body that is none": answer(202, {"Content-Encoding": "gzip"}, b"no"),
}
ENDLESS = [
    LOST["no answer comes within the timeout"],
    LOST["the answer comes too late"],
    LOST["an answer drips"],
    LOST["hints come, and then nothing"],
]
"""Only these end by the timeout. The others must not, however busy the machine is."""


@pytest.mark.real_time
@pytest.mark.parametrize("reused", [False, True], ids=["fresh connection", "reused connection"])
@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_post_whose_answer_is_lost_is_sent_once(
    fault: Step, reused: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is SubmissionUncertainError, with what was sent and when, and never a second POST."""
    monkeypatch.setattr("eggapi_async._lanes.POST_KEEPALIVE", 30.0)  # on a busy machine too
    script = [accepted("gen_0"), fault] if reused else [fault]
    with Wire(script) as server:
        async with client_of(server, timeout=1.0 if fault in ENDLESS else 30.0) as egg:
            if reused:
                await egg.with_options(timeout=30.0).generate("An egg before")
            began = datetime.now(UTC)
            with pytest.raises(SubmissionUncertainError) as caught:
                await egg.generate("A lost egg")
            ended = datetime.now(UTC)
            assert len(egg.unfinished) == reused
        posts = [request for request in server.requests if request.method == "POST"]
    assert len(posts) == len(server.requests) == 1 + reused
    assert len({request.connection for request in posts}) == 1, "the connection was reused"
    assert caught.value.request.prompt == "A lost egg"
    assert began <= caught.value.sent_at <= caught.value.lost_at <= ended
    assert not isinstance(caught.value, (ConnectionFailedError, APIError, OSError))
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in loud] == ["eggapi_async"]


# --- what was provably not taken heals by itself ---------------------------------------------


class Detour(httpx.AsyncBaseTransport):
    """Real connections, of which the first few lead to a port that refuses them."""

    def __init__(self, port: int, times: int) -> None:
        self.refused = 0
        self._port = port
        self._times = times
        self._inner = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.refused < self._times:
            self.refused += 1
            request.url = request.url.copy_with(port=self._port)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


QUICK = RetryPolicy(base_delay=0.01)


@pytest.mark.real_time
async def test_refused_connections_heal() -> None:
    """A POST that could not connect is tried again, and accepted once."""
    with refusing_port() as port, Wire([accepted()]) as server:
        detour = Detour(port, times=3)
        async with httpx.AsyncClient(transport=detour) as http:
            egg = client_of(server, http_client=http, retry=QUICK)
            assert (await egg.generate("An egg")).id == "gen_1"
            assert egg.stats.retries == 3
    assert detour.refused == 3
    assert [request.method for request in server.requests] == ["POST"]


@pytest.mark.real_time
async def test_connections_that_are_always_refused_end_as_a_failed_connection() -> None:
    """After the attempts that the policy allows it is known that nothing was bought."""
    with refusing_port() as port:
        async with client_of(f"http://127.0.0.1:{port}", retry=QUICK) as egg:
            with pytest.raises(ConnectionFailedError) as caught:
                await egg.generate("An egg")
            assert egg.stats.retries == 4
    assert not caught.value.was_sent


@pytest.mark.real_time
async def test_a_kept_connection_that_the_service_closed_is_not_used() -> None:
    """An idle connection's end is seen before a POST is written to it."""
    with Wire([answer(202, body=_body(), idle_seconds=0.0), accepted("gen_2")]) as server:
        async with client_of(server) as egg:
            await egg.generate("An egg")
            await server.wait_for(lambda it: not it._talks[0].open)
            assert (await egg.generate("Another egg")).id == "gen_2"
    assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.real_time
async def test_a_post_never_uses_the_connection_of_a_get() -> None:
    """POSTs have connections of their own, which are kept for a shorter time."""
    with Wire([json_answer(data(task())), accepted(), json_answer(data(task()))]) as server:
        async with client_of(server) as egg:
            await egg.get_task("gen_1")
            await egg.generate("An egg")
            await egg.get_task("gen_1")
    assert [request.connection for request in server.requests] == [1, 2, 1]


def _body() -> bytes:
    return b'{"data": {"id": "gen_1", "status": "pending", "model": "m", "type": "t"}}'


READS_HEAL = {
    "the connection is closed": close(),
    "the connection is reset": reset(),
    "half a status line comes": half_status(),
    "the body is cut": cut(b'{"data": {"id'),
    "502 as a page": html_answer(502),
    "500 in the envelope": json_answer(error("INTERNAL_ERROR"), 500),
    "200 with a page": html_answer(200),
    "408": html_answer(408),
}


@pytest.mark.real_time
@pytest.mark.parametrize("fault", READS_HEAL.values(), ids=READS_HEAL)
async def test_a_read_is_repeated_after_whatever_may_pass(fault: Step) -> None:
    """A GET buys nothing: it is sent again, and the caller notices nothing."""
    with Wire([fault, json_answer(data(task("gen_7")))]) as server:
        async with client_of(server, retry=QUICK) as egg:
            assert (await egg.get_task("gen_7")).id == "gen_7"
            assert egg.stats.retries == 1
    assert [request.method for request in server.requests] == ["GET", "GET"]


@pytest.mark.real_time
@pytest.mark.parametrize("trusted", [False, True], ids=["unknown authority", "another host's"])
async def test_a_certificate_that_is_not_trusted_is_final(
    trusted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """It is ConnectionFailedError at once: one handshake, no repetition, nothing sent."""
    authority = trustme.CA()
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with tls_server(authority, "elsewhere.example") as (url, handshakes):
        async with client_of(url, retry=QUICK) as egg:
            with pytest.raises(ConnectionFailedError, match=r"(?i)certificate") as caught:
                await egg.generate("An egg")
            assert egg.stats.retries == 0
        assert handshakes == [1]
    assert not caught.value.is_passing
    assert not caught.value.was_sent


@pytest.mark.real_time
async def test_a_certificate_that_is_trusted_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """https to a host whose certificate fits works."""
    monkeypatch.setattr("eggapi_async._lanes.POST_KEEPALIVE", 30.0)  # on a busy machine too
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with tls_server(authority, "127.0.0.1") as (url, handshakes):
        async with client_of(url) as egg:
            assert (await egg.generate("An egg")).id == "gen_1"
            assert (await egg.generate("An egg")).id == "gen_1"
        assert handshakes == [1]


@asynccontextmanager
async def tls_server(authority: trustme.CA, host: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A TLS server under a certificate for the host; the list holds the number of handshakes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    handshakes, gone = [0], asyncio.Event()

    def count(*_: object) -> None:
        handshakes[0] += 1

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            head = f"HTTP/1.1 202 Accepted\r\nContent-Length: {len(_body())}\r\n\r\n"
            writer.write(head.encode() + _body())
        writer.close()
        gone.set()

    context.sni_callback = count
    _tls.cache_clear()  # it is made once, and has to be made for this authority
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", handshakes
        if host == "127.0.0.1":  # otherwise nobody gets beyond the handshake
            await gone.wait()
    finally:
        server.close()
        _tls.cache_clear()


# --- 429 and 503 -----------------------------------------------------------------------------


def scripted(
    *answers: httpx.Response | Exception, **options: Any
) -> tuple[AsyncEggClient, list[float]]:
    """A client of a service that gives these answers in turn, and when it was asked."""
    script, asked = list(answers), list[float]()

    def serve(_: httpx.Request) -> httpx.Response:
        asked.append(anyio.current_time())
        answer = script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx.AsyncClient(transport=httpx.MockTransport(serve))
    return AsyncEggClient(KEY, http_client=http, **options), asked


def refusal(**headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(429, json=error("RATE_LIMITED", "slow down"), headers=named)


def good(task_id: str = "gen_1") -> httpx.Response:
    return httpx.Response(202, json=data(task(task_id)))


NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOON.timestamp() + seconds, UTC), usegmt=True)


PAUSES = [
    pytest.param(refusal(), 1.0, id="none is asked for: one second"),
    pytest.param(refusal(retry_after="7"), 7.0, id="seconds"),
    pytest.param(refusal(retry_after="0.5"), 0.5, id="half a second"),
    pytest.param(refusal(retry_after="soon"), 1.0, id="nonsense is none"),
    pytest.param(refusal(retry_after="-5"), 1.0, id="a negative pause is none"),
    pytest.param(
        refusal(retry_after=http_date(9), date=http_date(0)), 9.0, id="a date, by its own clock"
    ),
    pytest.param(refusal(retry_after="120"), 120.0, id="as long as is allowed"),
]


@on_both
@pytest.mark.parametrize(("first", "pause"), PAUSES)
async def test_a_refusal_by_429_heals_after_the_pause_that_it_asks_for(
    first: httpx.Response, pause: float
) -> None:
    """The POST is sent again as soon as it may, and accepted once."""
    egg, asked = scripted(first, good())
    assert (await egg.generate("An egg")).id == "gen_1"
    assert asked[1] - asked[0] == pytest.approx(pause, abs=0.05)
    assert (egg.stats.retries, egg.stats.rate_limited) == (1, 1)


@on_both
async def test_any_body_makes_a_429_a_refusal() -> None:
    """A proxy's page under 429 was not taken either."""
    egg, asked = scripted(httpx.Response(429, html="<html>"), good())
    await egg.generate("An egg")
    assert len(asked) == 2


@on_both
async def test_503_in_the_apis_own_envelope_heals() -> None:
    """The one 5xx that states that nothing was done is repeated."""
    unavailable = httpx.Response(503, json=error("SERVICE_UNAVAILABLE"))
    egg, asked = scripted(unavailable, unavailable, good())
    await egg.generate("An egg")
    assert len(asked) == 3
    assert egg.stats.submitted == 1


@on_both
async def test_503_ends_when_the_attempts_are_used_up() -> None:
    """An outage is raised as what it is."""
    answers = [httpx.Response(503, json=error("SERVICE_UNAVAILABLE")) for _ in range(5)]
    egg, asked = scripted(*answers, retry=RetryPolicy(max_attempts=3))
    with pytest.raises(ServerError):
        await egg.generate("An egg")
    assert len(asked) == 3


@on_both
async def test_a_pause_longer_than_allowed_is_raised_at_once() -> None:
    """Retry-After beyond max_retry_after is an error that names it, and takes no time."""
    egg, asked = scripted(refusal(retry_after="120.5"), retry=RetryPolicy(deadline=1000))
    began = anyio.current_time()
    with pytest.raises(RateLimitedError) as caught:
        await egg.generate("An egg")
    assert caught.value.retry_after == 120.5
    assert anyio.current_time() == began
    assert len(asked) == 1


@on_both
async def test_a_pause_beyond_the_deadline_is_raised_at_once() -> None:
    """There is no point in waiting for what would come too late."""
    egg, _ = scripted(refusal(retry_after="60"), retry=RetryPolicy(deadline=59))
    began = anyio.current_time()
    with pytest.raises(RateLimitedError) as caught:
        await egg.generate("An egg")
    assert caught.value.retry_after == 60
    assert anyio.current_time() == began


@on_both
async def test_refusals_that_outlast_the_deadline_are_raised() -> None:
    """A call that is refused for ever ends, and by its deadline."""
    egg, asked = scripted(*[refusal() for _ in range(99)], retry=RetryPolicy(deadline=30))
    began = anyio.current_time()
    with pytest.raises(RateLimitedError):
        await egg.generate("An egg")
    assert anyio.current_time() - began <= 30
    assert len(asked) < 10


@on_both
async def test_a_repetition_does_not_wait_for_its_turn_beyond_the_deadline() -> None:
    """When somebody else's refusal stops everybody for longer, the last error stands."""
    limiter = RateLimiter(per_second=None)
    egg, asked = scripted(
        refusal(retry_after="2"), good(), limiter=limiter, retry=RetryPolicy(deadline=10)
    )
    began = anyio.current_time()

    async def refuse_somebody_else() -> None:
        await anyio.sleep(1)
        limiter.refused(sent_at=anyio.current_time(), retry_after=100)

    async with anyio.create_task_group() as group:
        group.start_soon(refuse_somebody_else)
        with pytest.raises(RateLimitedError) as caught:
            await egg.generate("An egg")
    assert caught.value.retry_after == 2
    assert 10 <= anyio.current_time() - began <= 10.3
    assert len(asked) == 1
    assert limiter._busy == 0


@on_both
async def test_the_first_attempt_waits_for_its_turn_as_long_as_it_takes() -> None:
    """Time in line before the first attempt is not counted."""
    limiter, began = RateLimiter(per_second=None), anyio.current_time()
    await limiter.acquire()
    limiter.release()
    limiter.refused(sent_at=began, retry_after=200)
    egg, asked = scripted(refusal(retry_after="5"), good(), limiter=limiter)
    await egg.generate("An egg")
    assert [moment - began for moment in asked] == [200, 205]


@on_both
async def test_the_cool_down_is_shared_by_all_callers() -> None:
    """While it lasts nobody sends anything, whatever kind of call it is."""
    egg, asked = scripted(refusal(retry_after="20"), *[good(f"gen_{n}") for n in range(9)])
    async with anyio.create_task_group() as group:
        group.start_soon(egg.generate, "An egg")
        await anyio.sleep(1)
        for n in range(4):
            group.start_soon(egg.generate, f"Egg {n}")
    assert len(asked) == 6
    assert min(asked[1:]) - asked[0] == pytest.approx(20, abs=0.05)


@on_both
async def test_the_cool_down_is_shared_by_two_clients_of_one_limiter() -> None:
    """A key's limit belongs to all who use it."""
    limiter = RateLimiter()
    one, asked_one = scripted(refusal(retry_after="20"), good(), limiter=limiter)
    other, asked_other = scripted(good(), limiter=limiter)
    async with anyio.create_task_group() as group:
        group.start_soon(one.generate, "An egg")
        await anyio.sleep(1)
        group.start_soon(other.generate, "An egg")
    assert asked_other[0] - asked_one[0] >= 20
    assert asked_one[1] - asked_one[0] >= 20


@on_both
async def test_a_long_retry_after_stops_the_others_for_two_minutes_only() -> None:
    """A service that asks for a day must not stop the whole client for a day."""
    egg, asked = scripted(refusal(retry_after="86400"), good())
    with pytest.raises(RateLimitedError):
        await egg.generate("An egg")
    await egg.generate("Another egg")
    assert asked[1] - asked[0] == pytest.approx(120, abs=0.05)


@on_both
async def test_no_turn_is_held_while_sleeping_for_a_repetition() -> None:
    """With one place only, another call goes through during the pause."""
    egg, asked = scripted(
        httpx.Response(503, json=error("SERVICE_UNAVAILABLE")),
        good("gen_other"),
        good("gen_first"),
        limiter=RateLimiter(1, None),
        retry=RetryPolicy(base_delay=20),
    )
    ids: list[str] = []

    async def generate() -> None:
        ids.append((await egg.generate("An egg")).id)

    async with anyio.create_task_group() as group:
        group.start_soon(generate)
        await anyio.sleep(0.001)
        group.start_soon(generate)
    assert ids == ["gen_other", "gen_first"]
    assert asked[1] < asked[2]


@on_both
async def test_nobody_is_more_often_under_way_than_there_are_places() -> None:
    """The turn is held until the answer is read: the service never sees more at once."""
    emulator = EggEmulator(clock=anyio.current_time, latency=1.0)
    at_once = Gauge(emulator)
    egg = connect(at_once, limiter=RateLimiter(3, None))
    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(egg.generate, f"Egg {n}")
    assert at_once.most == 3
    assert len(emulator.accepted) == 20


class Gauge:
    """An ASGI app before another that measures how many requests are under way at once."""

    def __init__(self, app: Any) -> None:
        self.now = 0
        self.most = 0
        self._app = app

    async def __call__(self, *call: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self._app(*call)
        finally:
            self.now -= 1


# --- never again -----------------------------------------------------------------------------

REFUSED = {
    "400": (httpx.Response(400, json=error("VALIDATION_ERROR")), BadRequestError),
    "413 as a page": (httpx.Response(413, html="<html>"), APIError),
    "422": (httpx.Response(422, json=error("BAD_REQUEST")), APIError),
    "302 to elsewhere": (
        httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
        UnexpectedResponseError,
    ),
    "307 to elsewhere": (
        httpx.Response(307, headers={"Location": "https://elsewhere.example/"}),
        UnexpectedResponseError,
    ),
}


@on_both
@pytest.mark.parametrize(("response", "kind"), REFUSED.values(), ids=REFUSED)
async def test_what_was_declined_is_raised_and_not_repeated(
    response: httpx.Response, kind: type[EggError]
) -> None:
    """A 4xx or a redirect proves that nothing was bought, and will not change."""
    egg, asked = scripted(response)
    with pytest.raises(kind):
        await egg.generate("An egg")
    assert len(asked) == 1


@on_both
async def test_a_read_that_is_declined_is_not_repeated() -> None:
    """Neither is a GET."""
    egg, asked = scripted(httpx.Response(404, json=error("NOT_FOUND")))
    with pytest.raises(APIError):
        await egg.get_task("gen_1")
    assert len(asked) == 1


@on_both
async def test_a_poll_is_tried_once() -> None:
    """`ask` leaves repetitions to the rhythm of the polls."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.html(502), on=None)
    transport = a_transport(connect(emulator)._engines.wire)
    call = protocol.list_tasks()
    with pytest.raises(ServerError):
        await transport.ask(call)
    assert (await transport.ask(call, first=True)).items == ()
    assert emulator.requests.total() == 2


def a_transport(wire: Door, **options: Any) -> Transport:
    return Transport(
        wire=wire,
        key=ApiKey(KEY),
        origin="https://egg.test",
        limiter=RateLimiter(),
        stats=Stats(),
        poll_patience=Patience(),
        **options,
    )


@on_both
async def test_the_time_of_a_loss_is_told_by_this_machines_clock() -> None:
    """Without another clock the wall clock of the machine is used, aware of its zone."""
    emulator = EggEmulator(clock=anyio.current_time)
    emulator.fail_next(Fault.lost())
    transport = a_transport(connect(emulator)._engines.wire)
    request = protocol.submit(GenerationRequest(prompt="An egg", model="nanobanana"))
    before = datetime.now(UTC)
    told: list[Any] = []

    def lose(lost: Any) -> EggError:
        told.append(lost)
        return ConnectionFailedError("lost", is_passing=False)

    with pytest.raises(ConnectionFailedError):
        await transport.call(request, Patience(), accept=lambda value, _: value, lose=lose)
    (lost,) = told
    assert before <= lost.sent_at <= lost.lost_at <= datetime.now(UTC)
    assert "lost" in lost.problem


@on_both
async def test_a_repetition_is_told_at_info(caplog: pytest.LogCaptureFixture) -> None:
    """Who listens learns what is sent again, and why."""
    caplog.set_level(logging.INFO, "eggapi_async")
    egg, _ = scripted(httpx.ReadError("cut"), httpx.Response(200, json=data(task())))
    await egg.get_task("gen_1")
    (record,) = [record for record in caplog.records if record.name == "eggapi_async"]
    assert record.getMessage() == "GET /v1/tasks/gen_1 goes again after ReadError: cut"


def test_jitter_comes_from_the_dice() -> None:
    """The pause before a repetition is the dice's part of its whole."""

    async def program() -> float:
        http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: script.pop(0)))
        transport = a_transport(Door(http), dice=lambda: 0.25)
        began = anyio.current_time()
        await transport.call(
            protocol.get_task("gen_1"),
            Patience(retry=RetryPolicy(base_delay=8)),
            accept=lambda value, _: value,
        )
        return anyio.current_time() - began

    script = [httpx.Response(502), httpx.Response(502), httpx.Response(200, json=data(task()))]
    assert run_virtual(program) == pytest.approx(8 * 0.25 + 16 * 0.25)


# --- cancelled on the way --------------------------------------------------------------------


@on_both
async def test_a_post_that_does_not_end_within_the_grace_is_told_as_lost() -> None:
    """After 5 s the cancellation goes on; a warning and a doubt are left."""
    told: list[Lost] = []

    def lose(lost: Lost) -> EggError:
        told.append(lost)
        return ConnectionFailedError("lost")

    emulator = EggEmulator(clock=anyio.current_time, latency=20)
    transport = a_transport(connect(emulator)._engines.wire)
    call = protocol.submit(GenerationRequest(prompt="An egg", model="nanobanana"))
    began = anyio.current_time()
    with anyio.move_on_after(1) as scope:
        await transport.call(call, Patience(), accept=lambda value, _: value, lose=lose)
    assert scope.cancelled_caught
    assert anyio.current_time() - began == 6
    assert [lost.problem for lost in told] == ["cancelled before the answer came"]


@on_both
async def test_a_read_that_is_cancelled_ends_at_once() -> None:
    """There is nothing to lose by a GET."""
    transport = a_transport(
        connect(EggEmulator(clock=anyio.current_time, latency=20))._engines.wire
    )
    began = anyio.current_time()
    with anyio.move_on_after(1):
        await transport.call(protocol.list_tasks(), Patience(), accept=lambda value, _: value)
    assert anyio.current_time() - began == 1


@on_both
async def test_a_download_is_counted_and_carries_no_key() -> None:
    """A stream is a GET outside the API."""
    seen: list[httpx.Headers] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200, content=b"egg")

    transport = a_transport(Door(httpx.AsyncClient(transport=httpx.MockTransport(serve))))
    async with transport.stream("https://cdn.test/egg.png", {"Range": "bytes=1-"}) as stream:
        assert b"".join([chunk async for chunk in stream.chunks()]) == b"egg"
    assert "authorization" not in seen[0]
    assert seen[0]["range"] == "bytes=1-"


# --- the timeout bounds an attempt in all its phases -----------------------------------------

SLOW: dict[str, Callable[[], Step]] = {
    "a body that drips": lambda: drip(b" " * 1000, every=0.02),
    "a head that drips": lambda: drip(b"{}", every=0.02, head_too=True),
    "a flood of 103": lambda: _flood,
    "silence": silence,
}


def _flood(talk: Any) -> None:
    for _ in range(500):
        talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        talk.pause(0.01)


@pytest.mark.real_time
@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
async def test_the_timeout_bounds_the_whole_of_an_attempt(slow: Callable[[], Step]) -> None:
    """httpx counts each read; we count the attempt."""
    lasted: list[float] = []
    with Wire([slow()] * 3) as server:
        async with client_of(server, timeout=0.2, retry=RetryPolicy(max_attempts=1)) as egg:
            for _ in range(3):  # a busy machine may oversleep once
                began = time.monotonic()
                with pytest.raises(ConnectionFailedError, match=r"timeout|Timeout"):
                    await egg.get_task("gen_1")
                lasted.append(time.monotonic() - began)
    assert min(lasted) < 2.0


@pytest.mark.real_time
async def test_a_body_that_is_compressed_to_nothing_is_not_unpacked_whole() -> None:
    """A bomb is given up at the cap, and is a failed connection like any unusable answer."""
    bomb = gzip.compress(b" " * 64_000_000, 1)
    with Wire([answer(200, {"Content-Encoding": "gzip"}, bomb)]) as server:
        async with client_of(server, retry=RetryPolicy(max_attempts=1)) as egg:
            with pytest.raises(ConnectionFailedError, match="more than 8388608 bytes"):
                await egg.get_task("gen_1")


# --- chaos -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_no_post_is_accepted_twice_under_random_faults(seed: int) -> None:
    """Whatever befalls a hundred submissions: each is accepted at most once, and accounted for."""

    async def program() -> None:
        emulator = EggEmulator(
            clock=anyio.current_time,
            seed=seed,
            per_second=40.0,
            latency=0.05,
            faults={"lost": 0.1, "html_after": 0.1, "idless": 0.05, "empty": 0.05, "slow": 0.05},
        )
        dice = random.Random(seed)
        for _ in range(20):
            emulator.fail_next(dice.choice([Fault.refused(429), Fault.refused(503)]))
        egg = connect(emulator)
        ids: list[str] = []
        doubts: list[EggError] = []
        refused: list[EggError] = []

        async def generate(n: int) -> None:
            try:
                ids.append((await egg.generate(f"Egg {n}")).id)
            except SubmissionUncertainError as error:
                doubts.append(error)
            except ServerError as error:  # met more refusals than the policy has attempts
                refused.append(error)

        async with anyio.create_task_group() as group:
            for n in range(100):
                group.start_soon(generate, n)
        assert len(ids) + len(doubts) + len(refused) == 100
        assert set(ids) <= set(emulator.accepted)
        assert len(emulator.accepted) == len(ids) + len(doubts)
        assert doubts

    run_virtual(program)
