"""Downloads that are led inside, by every trick of URLs, names and redirects; all dials are noted.

Real sockets: an audit hook of the interpreter notes every address that is connected to, and a
resolver of the test's own says where names lead, so that nothing leaves this machine.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme

from eggapi_async import AsyncEggClient, DownloadError, RetryPolicy
from eggapi_async._lanes import _tls
from tests.content_host import PNG, Host, finished, says, whole
from tests.wire import Received, Step, Wire, answer

ONCE = RetryPolicy(max_attempts=1)
OUTSIDE: Final = "127.0.0.1"
"""Stands for all that is allowed; the rest of this machine is inside."""

NAMES: Final[dict[str, list[str]]] = {
    "outside.test": [OUTSIDE],
    "inside.test": ["127.0.0.2"],
    "private.test": ["10.0.0.7"],
    "metadata.test": ["169.254.169.254"],
    "shared.test": ["100.64.0.1"],
    "nowhere.test": ["0.0.0.0"],
    "many.test": ["224.0.0.1"],
    "six.test": ["::1"],
    "local.test": ["fe80::1"],
    "unique.test": ["fd00::1"],
    "mapped.test": ["::ffff:127.0.0.2"],
    "mapped-private.test": ["::ffff:10.0.0.7"],
    "translated.test": ["64:ff9b::7f00:2"],
    "tunnelled.test": ["2002:7f00:2::"],
    "both.test": ["127.0.0.2", "10.0.0.7", "::1"],
    "xn--inside-.test": ["127.0.0.2"],
    "localhost": ["127.0.0.2", "::1"],
    "ip6-localhost": ["::1"],
    "localhost.localdomain": ["127.0.0.2"],
    "metadata.google.internal": ["169.254.169.254"],
    "127.0.0.2.nip.test": ["127.0.0.2"],
}
"""Where names lead. Others have no address."""

LITERALS: Final = [
    *("127.0.0.2", "127.0.0.2.", "127.255.255.254", "10.0.0.7", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "0.0.0.0", "0", "224.0.0.1", "255.255.255.255"),
    *("198.18.0.1", "192.0.2.1"),
    *("2130706434", "0x7f000002", "0X7F.0.0.2", "0177.0.0.2", "127.2", "127.0.2", "0x7f.2"),
    *("127.0.0.0x2", "017700000002", "00000177.0.0.02"),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]"),
    *("[::127.0.0.2]", "[fe80::1]", "[fe80::1%25lo]", "[fd00::1]", "[fec0::1]", "[ff02::1]"),
    *("[64:ff9b::127.0.0.2]", "[2002:7f00:2::]", "[2001:db8::1]"),
    *("１２７.0.0.2", "127。0。0。2", "①②⑦.0.0.2", "127.0.0.2%00.cdn.test", "%31%32%37.0.0.2"),
    *("outside.test@127.0.0.2", "user:password@inside.test", "127.0.0.2\\@outside.test"),
    *("127.0.0.2#@outside.test", "127.0.0.2?@outside.test/"),
    *("LOCALHOST", "inside.localhost", "INSIDE.test"),
]  # fmt: skip
HOSTS: Final = [*LITERALS, *(name for name in NAMES if name != "outside.test")]
OTHERS: Final = [
    *(
        "http://127.0.0.2/",
        "http://127.0.0.1.inside.test/",
        "http://inside.test/",
        "//inside.test/",
    ),
    *("http://[::1]/", "http://2130706434/", "ftp://127.0.0.2/", "file:///etc/passwd"),
    *("gopher://127.0.0.2/", "data:image/png;base64,iVBORw0KGgo=", "unix:/var/run/docker.sock"),
    *("javascript:alert(1)", "https:127.0.0.2/", "https:/127.0.0.2/", "https:///127.0.0.2/"),
    *("https://\t127.0.0.2/", "https://127.0.0.2:0/", "https://127.0.0.2:22/", "dict://127.0.0.2/"),
    *("https://inside.test:99999/", "https://inside.test:-1/", "jar:https://inside.test!/"),
]
TRICKS: Final = [*(f"https://{host}/x.png" for host in HOSTS), *OTHERS]

_noted: list[Any] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _noted is not None:
        _noted.append(arguments[1])


sys.addaudithook(_note)


@contextmanager
def dials() -> Iterator[list[Any]]:
    """The addresses that anything in this process connects to."""
    global _noted
    noted: list[Any] = []
    _noted = noted
    try:
        yield noted
    finally:
        _noted = None


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where names lead is in `NAMES`; the list of those that were asked for. No proxy."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        name = (host.decode() if isinstance(host, bytes) else str(host)).lower()
        asked.append(name)
        found: list[Any] = []
        for address in NAMES.get(name, []):
            found += real(address, *arguments, **options)
        if name in NAMES:
            return found
        if name.rstrip(".").endswith((".test", ".internal")) or name not in _written(name):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    return asked


def _written(host: str) -> set[str]:
    """*host* where the system takes it for an address: it is not asked for anywhere."""
    with suppress(OSError, UnicodeError):
        socket.inet_aton(host)
        return {host}
    return {host} if ":" in host else set()


def leading(targets: list[str]) -> Any:
    """A content host whose every path leads to another target."""

    def serve(request: Received) -> Step:
        target = targets[int(request.path.rpartition("/")[2])]
        return answer(302, {"Location": target.encode().decode("latin-1")})

    return serve


@pytest.mark.real_time
async def test_no_trick_leads_inside(tmp_path: Path) -> None:
    """As a task's output, as a URL, and by a redirect: nothing is dialled but what is allowed."""
    assert len(TRICKS) * 3 >= 60
    with Wire(leading(TRICKS)) as server, dials() as noted:
        async with AsyncEggClient("a-key", private_hosts=[OUTSIDE], retry=ONCE) as egg:
            for number, trick in enumerate(TRICKS):
                start = f"{server.url}/{number}"
                for source in (finished(trick), trick, start):
                    with pytest.raises(DownloadError):
                        await egg.download(source, tmp_path)
        assert [request.path for request in server.requests] == [
            f"/{number}" for number in range(len(TRICKS))
        ]
        hits = [address for address in noted if address != (OUTSIDE, server.port)]
        assert noted
    assert hits == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_time
async def test_what_is_allowed_is_dialled(tmp_path: Path) -> None:
    """The same notes show a dial where the option allows it: they would show a hit."""
    with dials() as noted:
        async with AsyncEggClient(
            "a-key", private_hosts=["127.0.0.2", "six.test"], retry=ONCE
        ) as egg:
            for host in ("127.0.0.2:1", "inside.test:1", "six.test:1", "both.test:1"):
                with pytest.raises(DownloadError):
                    await egg.download(f"https://{host}/x.png", tmp_path)
    assert [address[0] for address in noted] == ["127.0.0.2", "127.0.0.2", "::1", "127.0.0.2"]


@pytest.mark.real_time
async def test_a_name_that_changes_its_mind_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolver: list[str]
) -> None:
    """Rebinding: it is resolved once for each connection, and that very address is dialled."""
    real, answers = socket.getaddrinfo, [OUTSIDE, "127.0.0.2", OUTSIDE, "10.0.0.7"]

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if "rebinding" in str(host):
            return real(answers.pop(0), *arguments, **options)
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with dials() as noted:
        async with AsyncEggClient("a-key", private_hosts=[OUTSIDE], retry=ONCE) as egg:
            for _ in range(4):
                with pytest.raises(DownloadError):
                    await egg.download("https://rebinding.test:1/x.png", tmp_path)
    assert noted == [(OUTSIDE, 1)] * 2
    assert answers == []


@pytest.mark.real_time
async def test_the_host_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is asked for by the name, whose certificate is checked; and so is the file."""
    heads: list[bytes] = []
    asked_for: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PNG), PNG))
        await writer.drain()
        writer.close()

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("outside.test").configure_cert(context)
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _tls.cache_clear()
    server = await asyncio.start_server(serve, OUTSIDE, 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        async with AsyncEggClient("a-key", private_hosts=["outside.test"], retry=ONCE) as egg:
            [path] = await egg.download(f"https://outside.test:{port}/x.png", tmp_path / "out")
        async with AsyncEggClient("a-key", private_hosts=[OUTSIDE], retry=ONCE) as egg:
            with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED"):
                await egg.download(f"https://{OUTSIDE}:{port}/x.png", tmp_path / "out2")
    finally:
        _tls.cache_clear()
        server.close()
        await server.wait_closed()
    assert path.read_bytes() == PNG
    assert asked_for[0] == "outside.test"
    assert f"\r\nHost: outside.test:{port}\r\n".encode() in heads[0]


@pytest.mark.real_time
async def test_a_proxy_resolves_in_our_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolver: list[str]
) -> None:
    """It gets names only: an address is refused here, and where a name leads is for it to say."""
    with Wire([answer(403), answer(403)]) as proxy, dials() as noted:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with AsyncEggClient("a-key", retry=ONCE) as egg:
            for host in ("127.0.0.2", "2130706434", "[::1]", "localhost", "0x7f.2"):
                with pytest.raises(DownloadError, match=r"no public address|no host's name"):
                    await egg.download(f"https://{host}/x.png", tmp_path)
            assert noted == []
            for host in ("cdn.test", "inside.test"):
                with pytest.raises(DownloadError, match="ProxyError"):
                    await egg.download(f"https://{host}/x.png", tmp_path)
        assert set(noted) == {(OUTSIDE, proxy.port)}
    assert [request.path for request in proxy.requests] == ["cdn.test:443", "inside.test:443"]
    assert not {"cdn.test", "inside.test"} & set(resolver)
    assert "a-key" not in repr(proxy.requests)


async def test_a_callers_own_client_is_not_given_what_leads_inside_by_its_spelling(
    tmp_path: Path,
) -> None:
    """It resolves names itself; addresses, numbers and names of this machine it never sees."""
    host = Host(play=lambda _: says(302, Location="https://10.0.0.7/"))
    async with httpx.AsyncClient(transport=host) as http:
        async with AsyncEggClient("a-key", http_client=http, retry=ONCE) as egg:
            for url in (f"https://{literal}/x.png" for literal in LITERALS[:-1]):
                with pytest.raises(DownloadError):
                    await egg.download(url, tmp_path)
            assert host.urls == []
            with pytest.raises(DownloadError, match=r"10\.0\.0\.7 is no public address"):
                await egg.download("https://cdn.test/x.png", tmp_path)
    assert host.urls == ["https://cdn.test/x.png"]


async def test_nothing_of_a_callers_client_goes_to_a_content_host(tmp_path: Path) -> None:
    """No header, no cookie, no parameter and no password of theirs, at no hop; and no Referer."""
    host = Host(
        says(302, Location="https://other.test/y.png", Set_Cookie="a=1"), whole(Set_Cookie="b=2")
    )
    async with httpx.AsyncClient(
        transport=host,
        headers={"Authorization": "Basic hush", "X-Api-Key": "hush", "Referer": "https://hush"},
        cookies={"hush": "hush"},
        params={"hush": "hush"},
        auth=("hush", "hush"),
    ) as http:
        async with AsyncEggClient("a-key", http_client=http) as egg:
            await egg.download("https://cdn.test/x.png", tmp_path)
    assert host.urls == ["https://cdn.test/x.png", "https://other.test/y.png"]
    for request in host.requests:
        assert set(request.headers) == {"host", "user-agent", "accept", "accept-encoding"}


async def test_a_password_in_a_url_is_neither_sent_nor_shown(tmp_path: Path) -> None:
    """httpx would make a header of it, at every hop that names one."""
    host = Host(says(302, Location="https://somebody:hush@other.test/"))
    async with httpx.AsyncClient(transport=host) as http:
        async with AsyncEggClient("a-key", http_client=http, retry=ONCE) as egg:
            for url in ("https://somebody:hush@cdn.test/x.png?a=@", "https://cdn.test/x.png"):
                with pytest.raises(DownloadError, match="no user and no password") as caught:
                    await egg.download(url, tmp_path)
                assert "hush" not in f"{caught.value} {caught.value.url}"
    assert len(host.requests) == 1
