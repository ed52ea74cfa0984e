"""What generations cost, as published, and what a list of them would cost.

One table, US dollars for each output picture. A price that is not in it is unknown, never 0: the
service may bill something else, and what it reports of a finished task is what counts.

Source: the price lists in the service's own documentation of its models, as of November 2026. Its
page on asynchronous models agrees: there, one nanobanana-pro picture costs $0.0160. Failed tasks
cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs

from .errors import InvalidRequestError
from .models import DEFAULT_MODEL, GenerationRequest

__all__ = ["PRICES", "Estimate", "ModelEstimate", "estimate", "price"]

PRICES: Final[Mapping[str, Mapping[str | None, Decimal]]] = {
    "nanobanana": dict.fromkeys((None, "1k", "2k", "4k"), Decimal("0.010")),
    "nanobanana-pro": {
        **dict.fromkeys((None, "1k", "2k"), Decimal("0.016")),
        "4k": Decimal("0.032"),
    },
}
"""US dollars of one output, by model and resolution (None: not asked for)."""


def price(request: GenerationRequest) -> Decimal | None:
    """What *request* costs if it is completed, in US dollars; None where nobody knows.

    It goes by what is sent: fields in `extra` win over the documented ones.
    """
    model, resolution = _sent(request, "model"), _sent(request, "resolution")
    count = _outputs(request)
    if not isinstance(model, str) or not isinstance(resolution, str | None) or count is None:
        return None
    each = PRICES.get(model, {}).get(resolution)
    return None if each is None else each * count


def _sent(request: GenerationRequest, field: str) -> Any:
    return request.extra.get(field, getattr(request, field))


def _outputs(request: GenerationRequest) -> int | None:
    """How many pictures are billed; None where `extra` says something odd."""
    count = _sent(request, "num_outputs")
    if count is None:
        return 1
    is_whole = isinstance(count, int) and not isinstance(count, bool)
    return count if is_whole and count >= 1 else None


# --- lists of requests ---------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ModelEstimate:
    """What the requests for one model would cost.

    model     its name
    requests  how many ask for it
    images    how many pictures those make that have a known price
    total     US dollars of all that have a known price
    unpriced  requests without a known price: in none of the sums
    """

    model: str
    requests: int = 0
    images: int = 0
    total: Decimal = Decimal(0)
    unpriced: int = 0


@attrs.frozen(kw_only=True)
class Estimate:
    """What a list of requests would cost if all of them were completed.

    total      US dollars of all that have a known price
    count      how many requests there are
    per_model  a `ModelEstimate` for each model, in the order in which they came
    """

    total: Decimal
    count: int
    per_model: tuple[ModelEstimate, ...]

    @property
    def images(self) -> int:
        """How many pictures they make, of those that have a known price."""
        return sum(part.images for part in self.per_model)

    @property
    def unpriced(self) -> int:
        """Requests without a known price: they are not in `total`."""
        return sum(part.unpriced for part in self.per_model)


def estimate(requests: Iterable[Any], *, model: str = DEFAULT_MODEL) -> Estimate:
    """What *requests* would cost: prompts, mappings or `GenerationRequest`s, read one by one.

    *model* is that of requests that name none. Nothing is sent. What is free, since it fails, is
    not known before: this is the most that the published prices come to. Raises InvalidRequestError
    for what is no valid request.
    """
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(requests, Iterable):
        raise InvalidRequestError("requests", requests, "an iterable of requests")
    parts: dict[str, ModelEstimate] = {}
    for item in requests:
        request = GenerationRequest.of(item, model=model)
        name = str(_sent(request, "model"))
        parts[name] = _with(parts.get(name) or ModelEstimate(model=name), request)
    return Estimate(
        total=sum((part.total for part in parts.values()), Decimal(0)),
        count=sum(part.requests for part in parts.values()),
        per_model=tuple(parts.values()),
    )


def _with(part: ModelEstimate, request: GenerationRequest) -> ModelEstimate:
    """*part* and one request more."""
    cost, images = price(request), _outputs(request)
    if cost is None or images is None:
        return attrs.evolve(part, requests=part.requests + 1, unpriced=part.unpriced + 1)
    return attrs.evolve(
        part,
        requests=part.requests + 1,
        images=part.images + images,
        total=part.total + cost,
    )
