"""What generations cost: the published table, and the estimate of many."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import attrs
import pytest

from eggapi_async import (
    Estimate,
    GenerationRequest,
    InvalidRequestError,
    ModelEstimate,
    estimate,
)
from eggapi_async.emulator import EggEmulator
from eggapi_async.prices import price
from eggapi_async.testing import connect

PRO = {"prompt": "An egg", "model": "nanobanana-pro"}

KNOWN: dict[str, tuple[Any, str]] = {
    "the default model": ("An egg", "0.010"),
    "every picture is billed": ({"prompt": "An egg", "num_outputs": 4}, "0.040"),
    "the default model costs the same in every size": (
        {"prompt": "An egg", "resolution": "4k"},
        "0.010",
    ),
    "pro": (PRO, "0.016"),
    "pro, small": (PRO | {"resolution": "1k"}, "0.016"),
    "pro, middling": (PRO | {"resolution": "2k"}, "0.016"),
    "pro costs double in 4k": (PRO | {"resolution": "4k"}, "0.032"),
    "pro in 4k, twice": (PRO | {"resolution": "4k", "num_outputs": 2}, "0.064"),
    "edits cost like the rest": (PRO | {"image_urls": ["https://a.test/1"]}, "0.016"),
    "`extra` wins, as it does when it is sent": (
        PRO | {"extra": {"num_outputs": 3, "resolution": "4k"}},
        "0.096",
    ),
    "`extra` may take a field back": (
        PRO | {"num_outputs": 3, "resolution": "4k", "extra": {"num_outputs": None}},
        "0.032",
    ),
    "other extra fields change nothing": (PRO | {"extra": {"seed": 7}}, "0.016"),
}

UNKNOWN: dict[str, dict[str, Any]] = {
    "a model that is not listed": {"model": "veo3.1"},
    "a size that is not listed": {"extra": {"resolution": "8k"}},
    "a size that is no text": {"extra": {"resolution": ["4k"]}},
    "a model that is no text": {"extra": {"model": ["nanobanana"]}},
    "a number of pictures as text": {"extra": {"num_outputs": "4"}},
    "no pictures": {"extra": {"num_outputs": 0}},
    "a truth for a number": {"extra": {"num_outputs": True}},
    "half a picture": {"extra": {"num_outputs": 1.5}},
}


@pytest.mark.parametrize(("item", "dollars"), KNOWN.values(), ids=KNOWN)
def test_a_published_price(item: Any, dollars: str) -> None:
    """Model, resolution and number of pictures make the price."""
    assert price(GenerationRequest.of(item)) == Decimal(dollars)


@pytest.mark.parametrize("fields", UNKNOWN.values(), ids=UNKNOWN)
def test_no_price_is_made_up(fields: dict[str, Any]) -> None:
    """What is not published is unknown: neither 0 nor a guess."""
    assert price(GenerationRequest.of({"prompt": "An egg"} | fields)) is None
    found = estimate([{"prompt": "An egg"} | fields, "A hen"])
    assert (found.total, found.count, found.unpriced) == (Decimal("0.010"), 2, 1)


@pytest.mark.parametrize("item", [item for item, _ in KNOWN.values()], ids=KNOWN)
async def test_the_emulator_bills_the_same(item: Any) -> None:
    """Two readings of the documentation agree."""
    request = GenerationRequest.of(item)
    if request.extra:
        request = attrs.evolve(request, extra={})
    async with connect(EggEmulator(faults={"sync": 1.0})) as egg:
        task = await egg.run(request)
    assert task.cost == price(request)


def test_an_estimate_sums_up_by_model() -> None:
    """Prompts, mappings and requests; models in the order in which they came."""
    requests = [
        PRO,
        "An egg",
        GenerationRequest(prompt="A hen", num_outputs=2),
        PRO | {"resolution": "4k"},
        {"prompt": "A cock", "model": "veo3.1"},
    ]
    assert estimate(requests) == Estimate(
        total=Decimal("0.078"),
        count=5,
        per_model=(
            ModelEstimate(model="nanobanana-pro", requests=2, images=2, total=Decimal("0.048")),
            ModelEstimate(model="nanobanana", requests=2, images=3, total=Decimal("0.030")),
            ModelEstimate(model="veo3.1", requests=1, unpriced=1),
        ),
    )
    assert (estimate(requests).images, estimate(requests).unpriced) == (5, 1)


def test_nothing_costs_nothing() -> None:
    """An empty list has an estimate, too."""
    assert estimate([]) == Estimate(total=Decimal(0), count=0, per_model=())


def test_the_model_of_those_that_name_none() -> None:
    """Like a client's `model`."""
    assert estimate(["An egg"], model="nanobanana-pro").total == Decimal("0.016")


def test_requests_are_read_one_by_one() -> None:
    """Any iterable will do, and nothing of it is kept."""

    def prompts() -> Iterator[str]:
        yield from (f"Egg {n}" for n in range(10_000))

    assert estimate(prompts()).total == Decimal(100)


@pytest.mark.parametrize(
    "requests", ["An egg", b"An egg", PRO, 7, None], ids=["text", "bytes", "one", "7", "None"]
)
def test_one_request_is_no_list(requests: Any) -> None:
    """One prompt would be priced letter by letter."""
    with pytest.raises(InvalidRequestError) as caught:
        estimate(requests)
    assert caught.value.field == "requests"


def test_a_bad_request_is_refused_by_name() -> None:
    """As it would be by `map`."""
    with pytest.raises(InvalidRequestError, match="num_outputs: expected a whole number"):
        estimate([{"prompt": "An egg", "num_outputs": 9}])
