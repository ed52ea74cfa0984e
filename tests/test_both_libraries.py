"""A client of httpx or of httpx2, brought along: the same failures, the same proofs, no traces.

Real sockets, and each library's own engine below it. What is written here of one holds for both.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import eggapi_async
from eggapi_async import (
    AsyncEggClient,
    ConnectionFailedError,
    EggError,
    GenerationTask,
    RetryPolicy,
    SubmissionUncertainError,
    TaskSnapshot,
)
from eggapi_async._foreign import Library, Trace, mapped
from eggapi_async._wire import ApiKey, Wire
from tests.scripted import KEY, accepted, client_of, data, task
from tests.test_secrets import PNG, reachable, shown
from tests.wire import (
    Received,
    Step,
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
from tests.wire import Wire as Server

ROOT = Path(__file__).parent.parent
ONCE = RetryPolicy(max_attempts=1)
on_each = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(library: ModuleType) -> Any:
    """A client of the caller's own; making a real TLS context would take longer than a test."""
    return library.AsyncClient(trust_env=False, verify=NO_TLS)


async def failed_post(http: Any, url: str, *, timeout: float = 5.0) -> ConnectionFailedError:
    """What a POST over the door ends with."""
    with pytest.raises(ConnectionFailedError) as caught:
        await Wire(http).exchange(
            "POST", url, key=ApiKey(KEY), params={}, body=b"{}", timeout=timeout
        )
    return caught.value


# --- what failures prove ---------------------------------------------------------------------

MAYBE_SENT: dict[str, tuple[Step, str]] = {
    "closed without an answer": (close(), "RemoteProtocolError"),
    "reset without an answer": (reset(), "ReadError"),
    "half a status line": (half_status(), "RemoteProtocolError"),
    "a body short of its length": (cut(b"abc"), "RemoteProtocolError"),
    "a chunk left open": (cut(b"abc", framing="chunked"), "RemoteProtocolError"),
    "no HTTP at all": (raw(b"garbage\r\n\r\n", then=close()), "RemoteProtocolError"),
}


@pytest.mark.real_time
@on_each
@pytest.mark.parametrize(("step", "named"), MAYBE_SENT.values(), ids=MAYBE_SENT)
async def test_a_post_that_left_may_have_been_taken(
    library: ModuleType, step: Step, named: str
) -> None:
    """The error is ours, names what happened, and proves nothing."""
    with Server([step]) as server:
        async with client(library) as http:
            error = await failed_post(http, server.url)
    assert error.was_sent
    assert str(error).startswith(named)


@pytest.mark.real_time
@on_each
async def test_silence_proves_nothing(library: ModuleType) -> None:
    """The headers had left."""
    with Server([silence()]) as server:
        async with client(library) as http:
            error = await failed_post(http, server.url, timeout=0.1)
    assert error.was_sent


@pytest.mark.real_time
@on_each
async def test_a_refused_connection_proves_that_nothing_was_sent(library: ModuleType) -> None:
    """By its class."""
    with refusing_port() as port:
        async with client(library) as http:
            error = await failed_post(http, f"http://127.0.0.1:{port}")
    assert not error.was_sent
    assert str(error).startswith("ConnectError")


@pytest.mark.real_time
@on_each
async def test_a_handshake_that_stalls_proves_that_nothing_was_sent(library: ModuleType) -> None:
    """By its progress: each library's engine tells of every step, and no headers had left."""
    with Server([silence()]) as server:
        async with client(library) as http:
            error = await failed_post(http, f"https://127.0.0.1:{server.port}", timeout=0.1)
    assert not error.was_sent


@pytest.mark.real_time
@on_each
async def test_a_handshake_with_a_stranger_proves_that_nothing_was_sent(
    library: ModuleType,
) -> None:
    """What does not speak TLS has read no request."""
    with Server([], accept={1: raw(b"HTTP/1.1 400 no\r\n\r\n", then=close())}) as server:
        async with client(library) as http:
            error = await failed_post(http, f"https://127.0.0.1:{server.port}")
    assert not error.was_sent


NAMES = [
    ("ConnectError", False, True),
    ("ConnectTimeout", False, True),
    ("PoolTimeout", False, True),
    ("ProxyError", False, True),
    ("UnsupportedProtocol", False, False),
    ("ReadError", True, True),
    ("ReadTimeout", True, True),
    ("WriteError", True, True),
    ("WriteTimeout", True, True),
    ("CloseError", True, True),
    ("RemoteProtocolError", True, True),
    ("LocalProtocolError", True, True),
    ("DecodingError", True, True),
    ("TooManyRedirects", True, True),
]


@on_each
@pytest.mark.parametrize(("name", "was_sent", "is_passing"), NAMES, ids=[one[0] for one in NAMES])
async def test_every_exception_of_a_library_means_the_same(
    library: ModuleType, name: str, was_sent: bool, is_passing: bool
) -> None:
    """From a transport that reports no progress, the class alone decides."""

    def serve(request: Any) -> Any:
        raise getattr(library, name)("words", request=request)

    async with library.AsyncClient(transport=library.MockTransport(serve)) as http:
        error = await failed_post(http, "https://egg.test/")
    assert (error.was_sent, error.is_passing) == (was_sent, is_passing)
    assert str(error) == f"{name}: words"
    assert isinstance(error.__cause__, getattr(library, name))
    assert vars(error.__cause__)["_request"] is None


@on_each
@pytest.mark.parametrize("name", ["InvalidURL", "StreamConsumed", "StreamClosed"])
def test_exceptions_that_are_no_http_errors_are_mapped_too(library: ModuleType, name: str) -> None:
    """Those that do not come from a request."""
    kind = getattr(library, name)
    with pytest.raises(ConnectionFailedError), mapped(Trace(), Library.of(library)):
        raise kind("words") if name == "InvalidURL" else kind()


def test_no_exception_of_either_library_is_unknown() -> None:
    """A new version may bring new ones: each is of a class that is mapped."""
    for library in (httpx, httpx2):
        kinds = [one for one in vars(library).values() if isinstance(one, type)]
        errors = [one for one in kinds if issubclass(one, Exception)]
        assert len(errors) > 20
        strange = [one for one in errors if not issubclass(one, Library.of(library).foreign)]
        assert {one.__name__ for one in strange} <= {"CookieConflict"}, strange


# --- the client over either ------------------------------------------------------------------


@pytest.mark.real_time
@on_each
async def test_a_lost_answer_is_uncertain_and_a_refused_connection_is_not(
    library: ModuleType,
) -> None:
    """What the door proves decides about the second bill."""
    async with client(library) as http:
        with Server([close()]) as server:
            with pytest.raises(SubmissionUncertainError):
                await client_of(server, http_client=http, retry=ONCE).generate("An egg")
            assert len(server.requests) == 1
        with refusing_port() as port:
            url = f"http://127.0.0.1:{port}"
            with pytest.raises(ConnectionFailedError):
                await client_of(url, http_client=http, retry=ONCE).generate("An egg")


@pytest.mark.real_time
@on_each
async def test_what_is_sent_is_the_same(library: ModuleType, tmp_path: Path) -> None:
    """Method, path, query, the documented headers; and no key with a download."""

    def service(request: Received) -> Step:
        if request.method == "POST":
            return accepted()
        if request.path.startswith("/v1/tasks?"):
            listed = {"items": [], "page": 2, "per_page": 5, "total": 0, "total_pages": 0}
            return json_answer(data(listed))
        return answer(200, {"Content-Type": "image/png"}, PNG)

    with Server(service) as server:
        async with client(library) as http:
            egg = client_of(server, http_client=http)
            await egg.generate("An egg")
            await egg.tasks_page(2, per_page=5)
            [path] = await egg.download(f"{server.url}/egg.png", tmp_path)
    assert path.read_bytes() == PNG
    post, page, download = server.requests
    assert (post.method, post.path) == ("POST", "/v1/generate")
    assert page.path == "/v1/tasks?page=2&per_page=5"
    for request in (post, page):
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["user-agent"].startswith("eggapi-async/")
    assert "authorization" not in download.headers


@pytest.mark.real_time
@on_each
async def test_redirects_of_the_api_are_not_followed(library: ModuleType) -> None:
    """The key goes nowhere else, though the client would go there by itself."""
    with Server([]) as elsewhere, Server([answer(302, {"Location": elsewhere.url})]) as server:
        async with library.AsyncClient(follow_redirects=True, verify=NO_TLS) as http:
            with pytest.raises(EggError):
                await client_of(server, http_client=http, retry=ONCE).get_task("gen_1")
    assert elsewhere.connections == 0


@pytest.mark.real_time
@on_each
async def test_a_cancelled_wait_leaves_the_client_usable(library: ModuleType) -> None:
    """Its pool has lost nothing, however many requests are cut off."""
    limits = library.Limits(max_connections=2, max_keepalive_connections=2)
    quiet: list[Step] = [silence()] * 6
    with Server([*quiet, json_answer(data(task()))]) as server:
        async with library.AsyncClient(trust_env=False, verify=NO_TLS, limits=limits) as http:
            egg = client_of(server, http_client=http)
            for number in range(1, 7):
                await cut_off(egg, server, number)
            assert isinstance(await egg.get_task("gen_1"), TaskSnapshot)


async def cut_off(egg: AsyncEggClient, server: Server, number: int) -> None:
    """Cancel a request, the one of that number, when it is at the server."""
    call = asyncio.ensure_future(egg.get_task("gen_1"))
    await server.wait_for(lambda it: len(it.requests) == number)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


# --- the key ---------------------------------------------------------------------------------

TROUBLE: dict[str, Step] = {
    "none": accepted(),
    "closed": close(),
    "reset": reset(),
    "silence": silence(),
    "a page that echoes the request": html_answer(502, f"<pre>Authorization: Bearer {KEY}</pre>"),
}


@pytest.mark.real_time
@on_each
@pytest.mark.parametrize("step", TROUBLE.values(), ids=TROUBLE)
async def test_the_key_shows_nowhere(
    library: ModuleType, step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    """In no error, frame, log at DEBUG nor on the client itself, whatever happens."""
    caplog.set_level(logging.DEBUG)
    with Server([step]) as server:
        async with client(library) as http:
            egg = client_of(server, http_client=http, timeout=0.2, retry=ONCE)
            [ended] = await asyncio.gather(egg.generate("An egg"), return_exceptions=True)
            assert isinstance(ended, EggError if step is not TROUBLE["none"] else GenerationTask)
            assert KEY not in (shown(ended) if isinstance(ended, EggError) else reachable(ended))
            assert KEY not in reachable(egg) + repr(http.headers.raw) + repr(vars(http))
    engine = {httpx: "httpcore", httpx2: "httpcore2"}[library]
    assert engine in {record.name.partition(".")[0] for record in caplog.records}
    assert KEY not in caplog.text
    assert all(KEY not in repr(vars(record)) for record in caplog.records)


# --- neither is forced upon anybody ----------------------------------------------------------


def test_no_public_signature_names_a_library() -> None:
    """Whoever uses one of them needs not know the other."""
    found = {f"{owner}.{name}": named(member) for owner, name, member in _public_callables()}
    assert "AsyncEggClient.__init__" in found
    assert {where: names for where, names in found.items() if names} == {}


def named(member: Any) -> list[str]:
    """The words in a function's annotations that lead to an HTTP library."""
    home = vars(sys.modules[member.__module__])
    words = re.findall(r"\w+", " ".join(map(str, member.__annotations__.values())))
    return [word for word in words if "httpx" in f"{word} {_origin(home.get(word))}"]


def _origin(value: object) -> str:
    """Where a class or a module comes from."""
    return f"{getattr(value, '__module__', '')} {getattr(value, '__name__', '')}"


def _public_callables() -> Iterator[tuple[str, str, Any]]:
    for owner in eggapi_async.__all__:
        value = getattr(eggapi_async, owner)
        if inspect.isfunction(value):
            yield owner, owner, value
        elif inspect.isclass(value):
            yield from _methods(owner, value)


def _methods(owner: str, value: type) -> Iterator[tuple[str, str, Any]]:
    for name, member in vars(value).items():
        is_public = not name.startswith("_") or name == "__init__"
        if is_public and inspect.isfunction(member) and "attrs" not in member.__code__.co_filename:
            yield owner, name, member


Brought = httpx2.AsyncClient


def test_what_names_a_library_would_be_noticed() -> None:
    """By its own name, or by another that leads to it."""

    def plain(http: httpx.AsyncClient) -> None: ...
    def hidden(http: Brought | None) -> None: ...
    def innocent(http: int) -> None: ...

    assert named(plain) == ["httpx"]
    assert named(hidden) == ["Brought"]
    assert named(innocent) == []


def loaded_after(script: str) -> set[str]:
    """The modules that an interpreter has loaded after *script*."""
    command = [sys.executable, "-c", f"import sys\n{script}\nprint(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


WORK = """
import asyncio, eggapi_async
from eggapi_async.emulator import EggEmulator
from eggapi_async.testing import connect

async def main():
    async with connect(EggEmulator(), on_event=print) as egg:
        await egg.generate("An egg")
        try:
            eggapi_async.AsyncEggClient("key", http_client=object())
        except eggapi_async.ConfigurationError:
            pass

asyncio.run(main())
"""


def test_who_does_not_bring_httpx2_does_not_load_it() -> None:
    """Nor OpenTelemetry: both are there, and a client at work asks for neither."""
    loaded = loaded_after(WORK)
    assert "httpx" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("httpx2", "opentelemetry")}


def test_a_library_brought_is_noticed() -> None:
    """The check sees what it looks for."""
    assert "httpx2" in loaded_after(f"import httpx2\n{WORK}")


def test_a_client_of_neither_is_refused() -> None:
    """With both loaded, the blocking clients of both are none."""
    for library in (httpx, httpx2):
        with pytest.raises(eggapi_async.ConfigurationError, match="got Client"):
            AsyncEggClient("key", http_client=library.Client(verify=NO_TLS))
