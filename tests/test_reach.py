"""Which addresses are public, and what a client's options allow beyond them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from eggapi_async import AsyncEggClient, ConfigurationError
from eggapi_async._reach import Reach, is_public, no_way

SERVICE = "https://api.eggapi.ai"

PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254"),
    *("127.0.0.1", "127.1.2.3", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1"),
    *("198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1"),
    *("2001:10::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "4000::1"),
    *("5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
    *("126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255"),
    *("172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"),
    *("223.255.255.255", "2001:200::1", "2606:4700::1111", "2a00:1450::1", "3ffe::1"),
    *("64:ff9b::8.8.8.8",),
]


@pytest.mark.parametrize("text", PRIVATE)
def test_an_address_that_is_another_machine_for_others_is_not_public(text: str) -> None:
    """Private, loopback, link-local, shared, reserved, multicast, or with another inside."""
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_all_others_are_public(text: str) -> None:
    """Up to the very edges of what is not."""
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        pytest.param("cdn.eggapi.ai", False, id="a name is told by its addresses only"),
        pytest.param("8.8.8.8", False, id="a public address"),
        pytest.param("2606:4700::1111", False, id="a public address of six"),
        pytest.param("127.0.0.1", True, id="loopback"),
        pytest.param("::1", True, id="loopback of six"),
        pytest.param("[::1]", True, id="in brackets"),
        pytest.param("10.0.0.1", True, id="a private address"),
        pytest.param("10.0.0.1.", True, id="with a dot behind"),
        pytest.param("localhost", True, id="loopback by name"),
        pytest.param("LOCALHOST.", True, id="in capitals"),
        pytest.param("anything.localhost", True, id="below it"),
        pytest.param("2130706433", True, id="a number"),
        pytest.param("134744072", True, id="a number of a public address"),
        pytest.param("0x7f000001", True, id="a hexadecimal number"),
        pytest.param("0x7F.1", True, id="two numbers"),
        pytest.param("127.1", True, id="two decimal numbers"),
        pytest.param("0177.0.0.1", True, id="an octal number"),
        pytest.param("127.0.0.0x1", True, id="one of four is hexadecimal"),
        pytest.param("evil.test.127", True, id="a name that ends in a number"),
        pytest.param("127.0.0.1.evil.test", False, id="a name that begins like an address"),
        pytest.param("127.0.0.1%00.cdn.test", True, id="a name with a percent sign"),
        pytest.param("a..b", True, id="a name with a gap"),
        pytest.param("", True, id="nothing"),
        pytest.param("xn--bcher-kva.test", False, id="a name in other letters"),
        pytest.param("1e100.net", False, id="a name with numbers in it"),
    ],
)
def test_a_host_as_it_is_written(host: str, is_refused: bool) -> None:
    """Addresses are refused before anything is resolved, in every spelling that systems take."""
    reach = Reach.of((), origin=SERVICE)
    assert (reach.refusal(host, 443) is not None) is is_refused


@pytest.mark.parametrize(
    ("allowed", "host", "address", "is_admitted"),
    [
        pytest.param((), "cdn.test", "8.8.8.8", True, id="public is always allowed"),
        pytest.param((), "cdn.test", "10.1.2.3", False, id="private never by itself"),
        pytest.param(["cdn.test"], "cdn.test", "10.1.2.3", True, id="by the name"),
        pytest.param(["CDN.test."], "cdn.TEST", "10.1.2.3", True, id="in whatever case"),
        pytest.param(["cdn.test"], "a.cdn.test", "10.1.2.3", False, id="not below the name"),
        pytest.param(["cdn.test"], "xcdn.test", "10.1.2.3", False, id="not beside the name"),
        pytest.param(["10.1.2.3"], "cdn.test", "10.1.2.3", True, id="by the address"),
        pytest.param(["10.1.2.3"], "cdn.test", "10.1.2.4", False, id="not another address"),
        pytest.param(["10.1.0.0/16"], "cdn.test", "10.1.2.3", True, id="by the network"),
        pytest.param(["10.1.2.3/16"], "cdn.test", "10.1.9.9", True, id="by a network's member"),
        pytest.param(["10.1.0.0/16"], "cdn.test", "10.2.0.0", False, id="not beside the network"),
        pytest.param(["10.0.0.0/8"], "cdn.test", "::ffff:10.1.2.3", False, id="not in a disguise"),
        pytest.param(["fd00::/8"], "cdn.test", "fd00::1", True, id="by a network of six"),
        pytest.param(["::1"], "cdn.test", "::1", True, id="by an address of six"),
        pytest.param(["0.0.0.0/0"], "cdn.test", "127.0.0.1", True, id="all of four"),
        pytest.param(["0.0.0.0/0"], "cdn.test", "::1", False, id="not all of six with it"),
    ],
)
def test_what_is_allowed(allowed: Any, host: str, address: str, is_admitted: bool) -> None:
    """Names, addresses and networks; of a host's addresses, those that may be."""
    reach = Reach.of(allowed, origin=SERVICE)
    assert reach.admitted(host, 443, [address]) == ([address] if is_admitted else [])


@pytest.mark.parametrize(
    ("origin", "host", "port", "is_admitted"),
    [
        pytest.param("https://egg.corp", "egg.corp", 443, True, id="the API's own host"),
        pytest.param("https://egg.corp:8443", "egg.corp", 8443, True, id="with its port"),
        pytest.param("https://egg.corp", "egg.corp", 9200, False, id="not another port of it"),
        pytest.param("https://egg.corp", "db.corp", 443, False, id="not another host"),
        pytest.param("https://10.1.2.3", "10.1.2.3", 443, True, id="an API at an address"),
        pytest.param("https://10.1.2.3", "10.1.2.3", 80, False, id="and at that port only"),
    ],
)
def test_the_apis_own_host_is_allowed(origin: str, host: str, port: int, is_admitted: bool) -> None:
    """Who is trusted with the key may serve pictures, wherever it is."""
    reach = Reach.of((), origin=origin)
    assert bool(reach.admitted(host, port, ["10.1.2.3"])) is is_admitted


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8765", "http://localhost", "http://[::1]:1"])
def test_with_an_api_on_this_machine_all_of_the_machine_is_allowed(origin: str) -> None:
    """An emulator's pictures may be at another port; nothing else is allowed by that."""
    reach = Reach.of((), origin=origin)
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        assert reach.refusal(host, 4444) is None
    assert reach.admitted("cdn.test", 443, ["127.0.0.1", "::1", "10.0.0.1"]) == ["127.0.0.1", "::1"]
    assert reach.refusal("10.0.0.1", 443) is not None


def test_a_refusal_says_what_allows_it() -> None:
    """Where a name leads, and the option; an address that is written is not repeated."""
    reach = Reach.of((), origin=SERVICE)
    told = reach.refusal("10.0.0.1", 443)
    assert told == "10.0.0.1 is no public address; private_hosts= of the client allows it"
    told = no_way("cdn.test", ["10.0.0.1", "::1"])
    assert told.startswith("cdn.test is at 10.0.0.1, ::1, which is no public address")
    assert reach.refusal("0x7f.1", 443) == "0x7f.1 is no host's name"


@pytest.mark.parametrize(
    "value",
    [
        *("cdn.test", b"cdn.test", 7, ["https://cdn.test"], ["cdn.test/x"], [""], [" "], [None]),
        *([7], ["10.0.0.0/33"], ["10.0.0"], ["*"], ["*.test"], ["a..b"], ["bücher.test"]),
        *(["cdn.test:443"], [b"10.0.0.1"]),
    ],
    ids=repr,
)
def test_what_is_no_list_of_hosts_is_refused(value: Any) -> None:
    """At once, with what was given; a text is no list of texts."""
    with pytest.raises(ConfigurationError, match="private_hosts: expected host names, addresses"):
        AsyncEggClient("a-key", private_hosts=value)


def test_the_environment_may_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With commas or blanks between; the argument wins, an empty one too."""
    monkeypatch.setenv("EGGAPI_PRIVATE_HOSTS", "10.0.0.0/8, cdn.test fd00::/8")
    reach = AsyncEggClient("a-key")._engines.wire._reach
    assert reach.hosts == {"cdn.test"}
    assert reach.refusal("10.1.2.3", 443) is None
    assert reach.refusal("fd00::1", 443) is None
    without = AsyncEggClient("a-key", private_hosts=())._engines.wire._reach
    assert without.refusal("10.1.2.3", 443) is not None
    monkeypatch.setenv("EGGAPI_PRIVATE_HOSTS", "10.0.0.0/99")
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.0/99"):
        AsyncEggClient("a-key")
