"""The nouns: requests that break a documented rule cannot be made, and values are values."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest

from eggapi_async.errors import EggError, InvalidRequestError, TaskFailedError
from eggapi_async.models import (
    DEFAULT_MODEL,
    GenerationRequest,
    Outcome,
    Page,
    Stats,
    TaskSnapshot,
    UsageRecord,
    UsageSummary,
    is_loopback,
    is_safe_url,
)

URL = "https://files.example/a.png"
LONG_URL = "https://hooks.example/".ljust(2048, "x")


def request(**fields: Any) -> GenerationRequest:
    """A request for a cat, with other fields of any type."""
    return GenerationRequest(**{"prompt": "A cat", **fields})


# --- requests --------------------------------------------------------------------------------


def test_a_prompt_is_enough() -> None:
    """Everything but the prompt has a default that leaves the choice to the service."""
    made = GenerationRequest(prompt="A cat")
    assert made.model == DEFAULT_MODEL == "nanobanana"
    left_open = attrs.asdict(made, filter=lambda field, _: field.name not in ("prompt", "model"))
    assert set(left_open) == {
        "negative_prompt",
        "aspect_ratio",
        "num_outputs",
        "resolution",
        "image_urls",
        "duration",
        "webhook_url",
        "extra",
    }
    assert not any(left_open.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("prompt", "x", id="a prompt of one character"),
        pytest.param("prompt", "x" * 2000, id="a prompt of 2000 characters"),
        pytest.param("prompt", "🐈" * 2000, id="characters are counted, not bytes"),
        pytest.param("prompt", "a\ncat\u0000", id="control characters are the service's business"),
        pytest.param("model", "veo3.1", id="a model that is not documented"),
        pytest.param("negative_prompt", "", id="an empty negative prompt"),
        pytest.param("negative_prompt", "x" * 1000, id="a negative prompt of 1000 characters"),
        pytest.param("aspect_ratio", "16:9", id="landscape"),
        pytest.param("aspect_ratio", "9:16", id="portrait"),
        pytest.param("num_outputs", 1, id="one output"),
        pytest.param("num_outputs", 4, id="four outputs"),
        pytest.param("resolution", "1k", id="1k"),
        pytest.param("resolution", "2k", id="2k"),
        pytest.param("resolution", "4k", id="4k"),
        pytest.param("image_urls", (URL,) * 9, id="nine pictures"),
        pytest.param("image_urls", ("http://files.example/a.png",), id="a picture by plain http"),
        pytest.param("duration", 1, id="one second"),
        pytest.param("duration", 60, id="sixty seconds"),
        pytest.param("webhook_url", LONG_URL, id="a webhook URL of 2048 characters"),
        pytest.param("webhook_url", "http://127.0.0.1:8000/hook", id="a webhook to this machine"),
        pytest.param("extra", {"seed": 7, "tags": ["a", None]}, id="undocumented fields"),
    ],
)
def test_accepted(field: str, value: Any) -> None:
    """What the documentation allows is kept as it is."""
    assert getattr(request(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("prompt", "", id="an empty prompt"),
        pytest.param("prompt", " \n", id="a blank prompt"),
        pytest.param("prompt", "x" * 2001, id="a prompt of 2001 characters"),
        pytest.param("prompt", None, id="no prompt"),
        pytest.param("prompt", b"A cat", id="a prompt of bytes"),
        pytest.param("prompt", "a \ud800 cat", id="a prompt with a lone surrogate"),
        pytest.param("model", "", id="an empty model"),
        pytest.param("model", "x" * 201, id="a model that is no name"),
        pytest.param("negative_prompt", "x" * 1001, id="a negative prompt of 1001 characters"),
        pytest.param("negative_prompt", 5, id="a negative prompt that is no text"),
        pytest.param("aspect_ratio", "1:1", id="an undocumented aspect ratio"),
        pytest.param("aspect_ratio", ["16:9"], id="an aspect ratio that is no text"),
        pytest.param("num_outputs", 0, id="no outputs"),
        pytest.param("num_outputs", 5, id="five outputs"),
        pytest.param("num_outputs", 10**5000, id="more outputs than can be printed"),
        pytest.param("num_outputs", True, id="a truth instead of a number"),
        pytest.param("num_outputs", 2.0, id="a fraction instead of a whole number"),
        pytest.param("resolution", "8k", id="an undocumented resolution"),
        pytest.param("resolution", "4K", id="a resolution in capitals"),
        pytest.param("image_urls", (URL,) * 10, id="ten pictures"),
        pytest.param("image_urls", URL, id="one URL that is not in a list"),
        pytest.param("image_urls", ("cat.png",), id="a file name instead of a URL"),
        pytest.param("image_urls", ("file:///etc/passwd",), id="a local file"),
        pytest.param("image_urls", (5,), id="a number instead of a URL"),
        pytest.param("image_urls", {URL: 1}, id="a mapping instead of a list"),
        pytest.param("image_urls", 5, id="a number instead of a list"),
        pytest.param("image_urls", URL.encode(), id="bytes instead of a list"),
        pytest.param("duration", 0, id="no duration"),
        pytest.param("duration", 61, id="more than a minute"),
        pytest.param("webhook_url", LONG_URL + "x", id="a webhook URL of 2049 characters"),
        pytest.param("webhook_url", "http://hooks.example/", id="a webhook by plain http"),
        pytest.param("webhook_url", "hooks.example", id="a webhook without a scheme"),
        pytest.param("webhook_url", "https://hooks.example/\ud800", id="a webhook of no bytes"),
        pytest.param("webhook_url", 5, id="a webhook that is no text"),
        pytest.param("extra", [("seed", 7)], id="undocumented fields that are no mapping"),
        pytest.param("extra", {5: 7}, id="an undocumented field without a name"),
        pytest.param("extra", {"seed": object()}, id="a value that JSON does not know"),
        pytest.param("extra", {"seed": float("nan")}, id="a number that JSON does not know"),
        pytest.param("extra", {"seed": 10**5000}, id="a number that cannot be written out"),
    ],
)
def test_refused(field: str, value: Any) -> None:
    """What breaks a documented rule is refused at once, by the field's name."""
    with pytest.raises(InvalidRequestError, match=f"^{field}: expected ") as caught:
        request(**{field: value})
    assert caught.value.field == field
    pickle.dumps(caught.value)


def test_extra_that_goes_in_circles_is_refused() -> None:
    """A structure that contains itself is no JSON."""
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises(InvalidRequestError, match=r"^extra: "):
        request(extra=circle)


def test_extra_that_is_too_deep_is_refused() -> None:
    """A structure too deep to be written out is refused, not a RecursionError."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequestError, match=r"^extra: "):
        request(extra={"deep": deep})


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(list, id="a list"),
        pytest.param(deque, id="a deque"),
        pytest.param(iter, id="an iterator"),
        pytest.param(set, id="a set"),
        pytest.param(dict.fromkeys, id="a mapping's keys"),
    ],
)
def test_image_urls_may_be_any_iterable(make: Callable[[list[str]], Any]) -> None:
    """Any iterable of URLs becomes a tuple, so that a request stays a value."""
    urls = make([URL])
    made = request(image_urls=urls.keys() if isinstance(urls, dict) else urls)
    assert made.image_urls == (URL,)


def test_a_request_is_frozen_and_hashable() -> None:
    """Equal requests are one key; none can be changed."""
    made = request(image_urls=[URL], extra={"seed": 7})
    assert len({made, request(image_urls=(URL,), extra={"seed": 7})}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.prompt = "A dog"  # type: ignore[misc]


def test_a_request_keeps_its_own_copy_of_extra() -> None:
    """Changing the mapping that was given does not change the request."""
    extra = {"seed": 7}
    made = request(extra=extra)
    extra["seed"] = 8
    assert made.extra == {"seed": 7}


def test_requests_and_snapshots_can_be_pickled() -> None:
    """Values cross to other processes."""
    made = request(extra={"seed": 7})
    task = TaskSnapshot(id="gen_1", status="completed", cost=Decimal("0.016"), raw={"a": 1})
    assert pickle.loads(pickle.dumps((made, task))) == (made, task)


# --- GenerationRequest.of --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "made"),
    [
        pytest.param("A cat", request(model="m"), id="a prompt gets the defaults"),
        pytest.param({"prompt": "A cat"}, request(model="m"), id="a mapping gets the defaults"),
        pytest.param(
            {"prompt": "A cat", "model": "n", "num_outputs": 2},
            request(model="n", num_outputs=2),
            id="a mapping's own fields win",
        ),
        pytest.param(
            {"prompt": "A cat", "model": None, "image_urls": None, "extra": None},
            request(model="m"),
            id="None is the same as absent",
        ),
        pytest.param(request(model="n"), request(model="n"), id="a request stays as it is"),
    ],
)
def test_of(item: object, made: GenerationRequest) -> None:
    """Prompts, mappings and requests all become requests."""
    assert GenerationRequest.of(item, model="m") == made


@pytest.mark.parametrize(
    ("item", "field"),
    [
        pytest.param(5, "request", id="a number is no request"),
        pytest.param(None, "request", id="None is no request"),
        pytest.param(["A cat"], "request", id="a list is no request"),
        pytest.param({"prompt": "A cat", "promt": "A dog"}, "promt", id="a slip is named"),
        pytest.param({5: "A cat"}, "5", id="a field without a name is shown"),
        pytest.param({"model": "m"}, "prompt", id="a prompt is missing"),
        pytest.param({"prompt": None}, "prompt", id="a prompt of None is missing"),
        pytest.param({"prompt": "A cat", "num_outputs": 9}, "num_outputs", id="nine outputs"),
        pytest.param("", "prompt", id="an empty prompt"),
    ],
)
def test_of_refuses(item: object, field: str) -> None:
    """What is no request is refused by name."""
    with pytest.raises(InvalidRequestError) as caught:
        GenerationRequest.of(item)
    assert caught.value.field == field


# --- URLs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        pytest.param("https://api.eggapi.ai", True, id="https is safe"),
        pytest.param("HTTPS://API.EGGAPI.AI:8443/x?y", True, id="capitals and a port are"),
        pytest.param("http://localhost:8000", True, id="plain http to this machine is"),
        pytest.param("http://127.0.0.1/", True, id="also by its address"),
        pytest.param("http://[::1]:8000/", True, id="also by its new address"),
        pytest.param("http://api.eggapi.ai", False, id="plain http to elsewhere is not"),
        pytest.param("http://localhost.evil.example", False, id="nor to a look-alike"),
        pytest.param("http://localhost@evil.example", False, id="nor behind a user name"),
        pytest.param("http://evil.example\\@localhost\\.x", False, id="nor behind backslashes"),
        pytest.param("ftp://localhost/", False, id="other schemes are not"),
        pytest.param("//api.eggapi.ai", False, id="no scheme is not"),
        pytest.param("https://", False, id="no host is not"),
        pytest.param("https://:443/", False, id="a port alone is not"),
        pytest.param("https://host:port/", False, id="a port that is no number is not"),
        pytest.param("https://host:99999/", False, id="a port beyond the last is not"),
        pytest.param("https://[::1", False, id="half an address is not"),
        pytest.param("https://a b/", False, id="a space is not"),
        pytest.param("https://a\r\nHost: b/", False, id="a line break is not"),
        pytest.param("", False, id="nothing is not"),
    ],
)
def test_safe_urls(url: str, is_safe: bool) -> None:
    """The key goes nowhere in the clear but to this very machine."""
    assert is_safe_url(url) is is_safe


def test_other_schemes_can_be_allowed() -> None:
    """What carries no secret may be plain http."""
    assert is_safe_url("http://files.example/", schemes=("https", "http"))


@pytest.mark.parametrize(
    ("host", "is_it"), [("localhost", True), ("::1", True), ("127.0.0.2", False), (None, False)]
)
def test_loopback(host: str | None, is_it: bool) -> None:
    """Only the three usual names mean this machine."""
    assert is_loopback(host) is is_it


# --- snapshots, pages, usage -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "is_final", "is_completed"),
    [
        pytest.param("pending", False, False, id="a pending task is not final"),
        pytest.param("processing", False, False, id="a processing task is not final"),
        pytest.param("completed", True, True, id="a completed task is final"),
        pytest.param("failed", True, False, id="a failed task is final, not completed"),
        pytest.param("resting", False, False, id="an unknown status is not final"),
        pytest.param("COMPLETED", False, False, id="another spelling is unknown"),
    ],
)
def test_status(status: str, is_final: bool, is_completed: bool) -> None:
    """The service's word decides, and an unknown one decides nothing."""
    task = TaskSnapshot(id="gen_1", status=status)
    assert (task.is_final, task.is_completed) == (is_final, is_completed)


def test_a_snapshot_is_hashable_and_its_repr_is_short() -> None:
    """The repr leaves out what is long, and shows times as text."""
    when = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    task = TaskSnapshot(id="gen_1", status="pending", created_at=when, raw={"secret": "x" * 999})
    assert hash(task) == hash(attrs.evolve(task, raw={}))
    assert "created_at=2024-01-15 10:30:00+00:00" in repr(task)
    assert "xxx" not in repr(task)


def test_pages_and_usage_are_values() -> None:
    """Equal contents are equal values, whose dicts do not keep them from being keys."""
    page = Page(items=(UsageRecord({"a": 1}),), page=1, per_page=20, total=1, total_pages=1)
    assert page == attrs.evolve(page)
    summary = UsageSummary(model="m", raw={"a": 1})
    assert len({summary, attrs.evolve(summary), UsageRecord({})}) == 2
    assert [summary.total_cost, summary.total_units, summary.request_count] == [None] * 3


# --- outcomes --------------------------------------------------------------------------------


def test_an_outcome_with_a_result_unwraps_to_it() -> None:
    """A good outcome is its result."""
    task = TaskSnapshot(id="gen_1", status="completed")
    outcome = Outcome(index=0, request=request(), result=task, paths=(Path("a.png"),))
    assert outcome.ok
    assert outcome.unwrap() is task


def test_an_outcome_with_an_error_unwraps_by_raising_it() -> None:
    """A bad outcome raises its error, even where there is a result that could not be saved."""
    task = TaskSnapshot(id="gen_1", status="failed")
    error: EggError = TaskFailedError(task)
    outcome = Outcome(index=0, request=None, result=task, error=error)
    assert not outcome.ok
    with pytest.raises(TaskFailedError) as caught:
        outcome.unwrap()
    assert caught.value is error


# --- stats -----------------------------------------------------------------------------------


def test_requests_are_counted_by_kind() -> None:
    """Polls are the peeks and the sweeps, and nothing else."""
    stats = Stats()
    for kind in ("submit", "peek", "sweep", "sweep", "list", "usage", "download"):
        stats.sent(kind)
    assert stats.requests["sweep"] == 2
    assert stats.polls == 3
    assert Stats().polls == 0


def test_ends_are_counted_with_their_cost() -> None:
    """Completed tasks add up to the cent; failed ones and unreadable costs add nothing."""
    stats = Stats()
    for status, cost in (
        ("completed", Decimal("0.016")),
        ("completed", Decimal("0.0160")),
        ("completed", None),
        ("failed", Decimal("9.99")),
    ):
        stats.ended(TaskSnapshot(id="gen_1", status=status, cost=cost))
    assert (stats.completed, stats.failed, stats.cost) == (3, 1, Decimal("0.032"))
