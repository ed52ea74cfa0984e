"""The client's own webhook URL: its reference, and the trust that deliveries come to it."""

from __future__ import annotations

from typing import Any

import pytest

from eggapi_async import ConfigurationError, GenerationRequest
from eggapi_async._hooks import (
    LONGEST_REFERENCE,
    MISSES,
    URLS,
    Address,
    Trust,
    reference_in,
    url_of,
    with_reference,
)

OWN = "https://bot.test/hooks"


def asking(url: str | None = None, **fields: Any) -> GenerationRequest:
    return GenerationRequest(prompt="an egg", webhook_url=url, **fields)


def reference_of(request: GenerationRequest, address: Address = Address(OWN)) -> str | None:
    return address.reference_for(request, lambda: "fresh")


def test_the_own_url_is_for_requests_that_name_none() -> None:
    """Those that do keep theirs, and so do those that say it by an undocumented field."""
    address = Address(OWN)

    assert address.given_to(asking()).webhook_url == OWN
    assert address.given_to(asking("https://other.test")).webhook_url == "https://other.test"
    assert address.given_to(asking(extra={"webhook_url": None})).webhook_url is None
    assert Address().given_to(asking()).webhook_url is None


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        pytest.param(OWN, f"{OWN}?egg_ref=ref", id="alone"),
        pytest.param(f"{OWN}?a=1", f"{OWN}?a=1&egg_ref=ref", id="beside another field"),
        pytest.param(f"{OWN}?", f"{OWN}?&egg_ref=ref", id="after an empty query"),
        pytest.param(f"{OWN}#part", f"{OWN}?egg_ref=ref#part", id="before a fragment"),
    ],
)
def test_a_reference_joins_the_query(url: str, sent: str) -> None:
    """The rest of the URL stays as it is, and can be had back."""
    marked = with_reference(asking(url), "ref")

    assert marked.webhook_url == sent
    if "#" not in url and not url.endswith("?"):
        assert url_of(marked) == url


def test_only_the_own_url_gets_a_reference() -> None:
    """And not even that where it must not be touched; what looks like one is not ours."""
    assert reference_of(asking(OWN)) == "fresh"
    assert reference_of(asking(OWN), Address(OWN, is_marked=False)) is None
    assert reference_of(asking("https://other.test")) is None
    assert reference_of(asking()) is None
    assert reference_of(asking(OWN, extra={"webhook_url": OWN})) is None
    assert reference_of(asking(f"{OWN}?egg_ref=given")) is None
    assert with_reference(asking(), "ref").webhook_url is None
    assert with_reference(asking(OWN), None).webhook_url == OWN


def test_a_url_that_carries_a_reference_already_is_refused() -> None:
    """All its deliveries would name one submission."""
    with pytest.raises(ConfigurationError, match="webhook_url: expected a query without egg_ref"):
        Address(f"{OWN}?egg_ref=bot")


@pytest.mark.parametrize(
    ("query", "reference"),
    [
        ("egg_ref=abc-_9", "abc-_9"),
        ("a=1&egg_ref=abc", "abc"),
        ("", None),
        ("egg_ref=", None),
        ("egg_ref=" + "a" * (LONGEST_REFERENCE + 1), None),
        ("egg_ref=%C3%A9", None),
        ("egg_ref=%00", None),
        ("&".join(["a=1"] * 200), None),
    ],
    ids=[
        "it is read",
        "beside others",
        "there is none",
        "an empty one is none",
        "one that is too long",
        "one that is not ASCII",
        "one that cannot be printed",
        "a flood of fields",
    ],
)
def test_a_reference_is_read_from_the_query(query: str, reference: str | None) -> None:
    """A stranger's query may be anything."""
    assert reference_in(query) == reference


@pytest.mark.parametrize(
    "url",
    ["http://bot.test/", "bot.test", "https://bot.test/" + "a" * 2000, 7, ""],
    ids=["no TLS", "no scheme", "no room for a reference", "no text", "nothing"],
)
def test_an_unusable_url_is_refused(url: Any) -> None:
    """When the client is made, not when the first picture is bought."""
    with pytest.raises(ConfigurationError, match="webhook_url"):
        Address(url)


def test_deliveries_are_relied_upon_until_polls_have_to_find_the_ends() -> None:
    """Some in a row, since one may be lost; the next delivery mends it."""
    trust = Trust(OWN)
    missed = [trust.missed(OWN) for _ in range(MISSES - 1)]
    assert trust.holds(OWN)
    trust.came(OWN)
    missed += [trust.missed(OWN) for _ in range(MISSES + 1)]
    assert missed == [*[False] * (MISSES - 1), *[False] * (MISSES - 1), True, False]
    assert not trust.holds(OWN)
    trust.came(OWN)
    assert trust.holds(OWN)


def test_deliveries_elsewhere_have_to_come_first() -> None:
    """Nobody has promised that they come here."""
    trust = Trust(OWN)
    assert not trust.holds("https://other.test")
    trust.came("https://other.test")
    assert trust.holds("https://other.test")


def test_only_so_many_urls_are_told_apart() -> None:
    """A URL per task must not fill the memory."""
    trust = Trust()
    for number in range(URLS + 1):
        trust.came(f"https://bot.test/{number}")
    assert [trust.holds(f"https://bot.test/{number}") for number in (0, 1)] == [False, True]
