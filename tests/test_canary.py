"""One key and one webhook secret through everything, and then looked for in all that anybody kept.

The API, answers of all kinds, redirects, a proxy, HTTP/2, a batch with its journal and its files,
events, webhooks, the command line: with every logger at DEBUG, whatever was logged, raised, told,
pickled, printed or written is evidence. Where a case has a test of its own is `test_secrets`.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import httpx
import httpx2
import pytest

from eggapi_async import (
    AsyncEggClient,
    ConfigurationError,
    EggError,
    Journal,
    PollPolicy,
    RetryPolicy,
    WebhookReceiver,
    WebhookVerificationError,
    sign_webhook,
    verify_webhook,
)
from eggapi_async._discretion import be_discreet
from eggapi_async.emulator import EggEmulator
from tests.deliveries import SECRET, body_of
from tests.scripted import KEY, data, task
from tests.served import served, start
from tests.test_secrets import CALLS, FAILURES, reachable, shown
from tests.wire import Wire, answer

pytestmark = pytest.mark.real_time

ONCE = RetryPolicy(max_attempts=1)
QUICK: Final = PollPolicy(first_delay=0.02, interval=0.1, min_interval=0.02)
PARENTS: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "h2", "hpack", "hpack.hpack")


class Evidence(logging.Handler):
    """Everything that anybody could have kept, as text."""

    def __init__(self) -> None:
        super().__init__(level=logging.NOTSET)
        self.texts: list[str] = []
        self.loggers: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record: its line, and all that it carries."""
        self.loggers.add(record.name.partition(".")[0])
        self.texts += [self.format(record), repr(vars(record))]

    def keep(self, *values: Any) -> None:
        """Keep what values show of themselves."""
        for value in values:
            self.texts += [shown(value)] if isinstance(value, BaseException) else [repr(value)]

    def keep_files(self, folder: Path) -> None:
        """Keep what is in the files of a folder."""
        for path in folder.rglob("*"):
            self.texts += [str(path), repr(path.read_bytes()) if path.is_file() else ""]

    def accuses(self, secret: str) -> list[str]:
        """The places where *secret* is shown."""
        return [text[:300] for text in self.texts if secret in text]


@pytest.fixture
def evidence() -> Iterator[Evidence]:
    """Every logger at DEBUG, and its records kept."""
    it, root = Evidence(), logging.getLogger()
    loggers = [root, *map(logging.getLogger, PARENTS), logging.getLogger("eggapi_async")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.DEBUG)
    root.addHandler(it)
    yield it
    root.removeHandler(it)
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)


async def attempt(evidence: Evidence, egg: AsyncEggClient, *calls: Any) -> None:
    """These calls, or every kind, their ends kept."""
    for call in calls or CALLS.values():
        try:
            evidence.keep(await call(egg))
        except EggError as error:
            evidence.keep(error, pickle.dumps(error))
    evidence.keep(egg, egg.stats, reachable(egg))


async def test_no_answer_and_no_failure_shows_it(evidence: Evidence) -> None:
    """Every failure that `test_secrets` knows, one after the other."""
    events: list[object] = []
    asked = 0
    for step in FAILURES.values():
        for call in CALLS.values():  # each with a limiter of its own: a 429 stops all for long
            with Wire([step]) as server:
                async with AsyncEggClient(
                    KEY, base_url=server.url, retry=ONCE, timeout=0.2, on_event=events.append
                ) as egg:
                    await attempt(evidence, egg, call)
            asked += len(server.requests)
    assert asked == len(FAILURES) * len(CALLS)
    evidence.keep(events, *map(pickle.dumps, events))
    assert events
    assert {"httpcore", "eggapi_async"} <= evidence.loggers
    assert evidence.accuses(KEY) == []


async def test_no_proxy_and_no_content_host_is_told(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy gets a name to connect to; a content host gets no header of the API's."""
    with Wire([answer(407), answer(407), answer(403)]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        async with AsyncEggClient(KEY, base_url="https://egg.test", retry=ONCE) as egg:
            await attempt(evidence, egg)
            with pytest.raises(EggError) as caught:
                await egg.download("https://cdn.test/x.png", tmp_path)
            evidence.keep(caught.value)
    assert len(proxy.requests) == 3
    evidence.keep(proxy.requests)
    assert evidence.accuses(KEY) == []


@asynccontextmanager
async def speaking_http2(bodies: list[bytes]) -> AsyncIterator[str]:
    """A service that speaks nothing but HTTP/2, and takes everything."""
    heard: list[list[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        while received := await reader.read(65536):
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    heard.append(event.headers)
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "202")])
                    connection.send_data(event.stream_id, bodies[0], end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    assert KEY in repr(heard), "nobody was asked"


async def test_a_callers_own_client_does_not_show_it(evidence: Evidence) -> None:
    """Neither over HTTP/2, whose library writes headers down, nor that of httpx2."""
    body = str(data(task())).replace("'", '"').replace("None", "null").encode()
    async with speaking_http2([body]) as url:
        async with httpx.AsyncClient(http1=False, http2=True) as http:
            async with AsyncEggClient(KEY, base_url=url, http_client=http, retry=ONCE) as egg:
                await attempt(evidence, egg)
            evidence.keep(http.headers, vars(http))
    assert {"hpack", "httpx", "httpcore"} <= evidence.loggers
    with Wire([answer(500), answer(500)]) as server:
        async with httpx2.AsyncClient(trust_env=False) as other:
            async with AsyncEggClient(
                KEY, base_url=server.url, http_client=other, retry=ONCE
            ) as egg:
                await attempt(evidence, egg)
    assert evidence.accuses(KEY) == []


@pytest.mark.parametrize(
    ("text", "argument", "is_shown"),
    [
        pytest.param("Adding %s", (b"authorization", b"Bearer x"), False, id="an older version"),
        pytest.param("Decoded %s", ("authorization", "Bearer x"), False, id="in text"),
        pytest.param("Encoded header block to %s", b"\x00", False, id="the encoded block"),
        pytest.param("Adding %s", (b"accept", b"*/*"), True, id="another header"),
        pytest.param("Decoding %s", b"\x00", True, id="what came"),
    ],
)
def test_what_hpack_may_write_down(
    evidence: Evidence, text: str, argument: object, is_shown: bool
) -> None:
    """Whatever its version says of the one header that matters."""
    be_discreet()
    be_discreet()
    logging.getLogger("hpack.hpack").debug("%s", "a line")
    before = len(evidence.texts)
    logging.getLogger("hpack.hpack").debug(text, argument, *())
    logging.getLogger("hpack.hpack").debug("named: %(x)s", {"x": 1})
    assert (len(evidence.texts) > before + 2) is is_shown


async def test_no_batch_and_no_command_shows_it(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that loses answers; journals, files, events, and all that the commands print."""
    events: list[object] = []
    emulator = EggEmulator(seed=3, speed=400.0, faults={"lost": 0.2, "html": 0.1})
    with served(emulator) as url:
        async with AsyncEggClient(KEY, base_url=url, polling=QUICK, on_event=events.append) as egg:
            out = tmp_path / "python"
            outcomes = await egg.map(
                [f"Egg {n}" for n in range(12)], journal=out / "run.sqlite3", save_to=out
            )
            evidence.keep(outcomes, *(pickle.dumps(one.error) for one in outcomes))
            evidence.keep(egg.unfinished, egg.stats, reachable(egg), events)
            evidence.keep(*(one.error for one in outcomes if one.error))
        with Journal(tmp_path / "python" / "run.sqlite3") as journal:
            evidence.keep(list(journal), journal)
        (tmp_path / "prompts.txt").write_text("An egg\nA hen\n")
        commands = [
            *(("batch", "prompts.txt", "-o", "out", "--gallery"), ("usage",), ("doctor",)),
            *(("tasks", "list"), ("generate", "An egg", "-o", "out"), ("tasks", "get", "gen_none")),
        ]
        secrets = {"EGGAPI_API_KEY": KEY, "EGGAPI_WEBHOOK_SECRET": SECRET, "EGGAPI_BASE_URL": url}
        for command in commands:
            process = start("-vv", *command, cwd=tmp_path, EGGAPI_LOG="debug", **secrets)
            evidence.keep(*await asyncio.to_thread(process.communicate))
    evidence.keep_files(tmp_path)
    assert any(path.suffix == ".png" for path in (tmp_path / "python").iterdir())
    assert "eggapi_async" in "".join(evidence.texts)
    assert evidence.accuses(KEY) == []
    assert evidence.accuses(SECRET) == []


async def test_no_webhook_shows_its_secret(evidence: Evidence) -> None:
    """Genuine, forged, stale, unreadable: the receiver, its answers, its errors, its events."""
    events: list[object] = []
    receiver = WebhookReceiver([SECRET, "another-secret"], on_event=events.append)
    body = body_of()
    stale = sign_webhook(body, SECRET, now=1.0)
    bodies = [body, b"{}", b"\xff"]
    for content in bodies:
        for headers in (sign_webhook(content, SECRET), sign_webhook(content, "a guess"), stale, {}):
            evidence.keep(await receiver.handle(content, headers))
            try:
                evidence.keep(verify_webhook(content, headers, SECRET))
            except WebhookVerificationError as error:
                evidence.keep(error, error.reason, error.event)
    flaws: list[Any] = ["", 7, "\ud800"]
    for flaw in flaws:
        with pytest.raises(ConfigurationError) as caught:
            WebhookReceiver([SECRET, flaw], on_event=events.append)
        evidence.keep(caught.value)
        with pytest.raises(WebhookVerificationError) as refused:
            verify_webhook(body, {}, [SECRET, flaw])
        evidence.keep(refused.value)
    with pytest.raises(WebhookVerificationError) as refused:
        verify_webhook("text", {}, SECRET)  # type: ignore[arg-type]
    evidence.keep(refused.value)
    evidence.keep(receiver, events)
    assert events
    assert evidence.accuses(SECRET) == []
