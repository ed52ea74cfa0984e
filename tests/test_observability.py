"""The page on observability: its blocks that need a real server or a logger of their own.

And what it says of OpenTelemetry's own instrumentation of httpx and httpx2: what that sees of us.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan

import eggapi_async
from eggapi_async.emulator import EggEmulator
from eggapi_async.otel import spans
from eggapi_async.testing import connect
from tests.pages import named
from tests.scripted import KEY, accepted, client_of, data, task
from tests.served import served
from tests.test_otel import Collector
from tests.virtual_time import run_virtual, virtual_clock
from tests.wire import Received, Step, json_answer
from tests.wire import Wire as Server

PAGE = "docs/observability.md"
PROMPT = "an egg, whispered"
INSTRUMENTORS = {httpx: HTTPXClientInstrumentor, httpx2: HTTPX2ClientInstrumentor}
on_each = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    """The process's tracer provider, for one test."""
    collector = Collector()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", collector.provider)
    return collector


def url_of(span: ReadableSpan) -> str:
    attributes = dict(span.attributes or {})
    return str(attributes.get("url.full") or attributes["http.url"])


def run_block(name: str) -> None:
    exec(compile(named(PAGE, name), PAGE, "exec"), {"__name__": "__main__"})


# --- the blocks ------------------------------------------------------------------------------


def test_the_block_of_http_spans(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the emulator over TCP: a POST and a GET beside the generation."""
    monkeypatch.setenv("EGGAPI_API_KEY", KEY)
    with served(EggEmulator()) as url:
        monkeypatch.setenv("EGGAPI_BASE_URL", url)
        run_block("http-spans")
    assert "pending" in capsys.readouterr().out
    [post], [get] = collector.spans("POST"), collector.spans("GET")
    [generation] = collector.spans()
    task_id = dict(generation.attributes or {})["egg.task.id"]
    assert url_of(post) == f"{url}/v1/generate"
    assert url_of(get) == f"{url}/v1/tasks/{task_id}"


def test_the_block_of_logs_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line is JSON, with the fields that the page names."""

    def client() -> eggapi_async.AsyncEggClient:
        return connect(EggEmulator(clock=virtual_clock))

    def run(main: Any) -> None:
        async def whole() -> None:
            await main

        run_virtual(whole)

    monkeypatch.setattr(eggapi_async, "AsyncEggClient", client)
    monkeypatch.setattr(asyncio, "run", run)
    with logger_as_it_was():
        run_block("json-logs")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["message"] == "POST /v1/generate: HTTP 202"
    for line in lines:
        assert set(line) == {"level", "message", "egg_kind", "egg_status_code", "egg_seconds"}


@contextmanager
def logger_as_it_was() -> Iterator[None]:
    log = logging.getLogger("eggapi_async")
    before = list(log.handlers)
    try:
        yield
    finally:
        log.handlers = before
        log.setLevel(logging.NOTSET)


# --- what instrumentation sees ---------------------------------------------------------------


def whatever(request: Received) -> Step:
    """A service that takes everything, and knows one task."""
    return accepted() if request.method == "POST" else json_answer(data(task()))


@pytest.mark.real_time
@on_each
async def test_the_requests_of_an_instrumented_client_are_spans(
    collector: Collector, library: ModuleType
) -> None:
    """Under the caller's, beside the generation's: an attempt, run apart, keeps what is current.

    Neither the prompt nor the key is in them, though the request has both.
    """
    async with library.AsyncClient(trust_env=False) as http:
        INSTRUMENTORS[library].instrument_client(http)
        with Server(whatever) as server:
            async with client_of(server, http_client=http, on_event=spans()) as egg:
                with collector.tracer.start_as_current_span("request") as parent:
                    bought = await egg.generate(PROMPT)
                    await bought.refresh()
    [post], [get], [generation] = collector.spans("POST"), collector.spans("GET"), collector.spans()
    assert [span.parent for span in (post, get, generation)] == [parent.get_span_context()] * 3
    assert "traceparent" in server.requests[0].headers
    shown = "".join(span.to_json() for span in (post, get, generation))
    assert KEY not in shown
    assert "whispered" not in shown


@pytest.mark.real_time
async def test_instrumenting_all_clients_does_not_see_connections_of_our_own(
    collector: Collector,
) -> None:
    """As the page says: only a client that is brought along is seen."""
    HTTPXClientInstrumentor().instrument()
    try:
        with Server(whatever) as server:
            async with client_of(server) as egg:
                await egg.generate(PROMPT)
            assert collector.spans("POST") == []
            async with httpx.AsyncClient(trust_env=False) as http:
                await client_of(server, http_client=http).generate(PROMPT)
            assert len(collector.spans("POST")) == 1
    finally:
        HTTPXClientInstrumentor().uninstrument()


@on_each
async def test_polls_are_under_the_span_of_whoever_waits(
    collector: Collector, library: ModuleType
) -> None:
    """And the generation is under the span of whoever called."""
    http = library.AsyncClient(
        transport=library.ASGITransport(app=EggEmulator(clock=anyio.current_time))
    )
    INSTRUMENTORS[library].instrument_client(http)
    async with eggapi_async.AsyncEggClient(KEY, http_client=http, on_event=spans()) as egg:
        with collector.tracer.start_as_current_span("caller") as caller:
            bought = await egg.generate(PROMPT)
        with collector.tracer.start_as_current_span("waiter") as waiter:
            await bought
    await http.aclose()
    polls = collector.spans("GET")
    assert polls
    assert [span.parent for span in polls] == [waiter.get_span_context()] * egg.stats.polls
    assert [span.parent for span in collector.spans()] == [caller.get_span_context()]
