"""The client's own webhook URL: who gets it, what it carries, and whether deliveries come to it.

A reference in the URL's query names the submission that a delivery belongs to, also where the
submission's answer was lost. Deliveries are trusted to come as long as they do: when polls have to
find the ends that webhooks should have told, tasks are polled as if there were none, until a
delivery comes again. No I/O, no clock, no dice.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs, urlsplit

import attrs

from .errors import ConfigurationError
from .models import GenerationRequest, is_safe_url

REFERENCE: Final = "egg_ref"
"""The query's field that carries the reference."""
_MARK = re.compile(rf"[?&]{REFERENCE}=[^&#]*$")
LONGEST_URL: Final = 2048
LONGEST_REFERENCE: Final = 64
MISSES: Final = 3
"""Ends in a row that polls had to find, until deliveries are no longer relied upon."""
URLS: Final = 64
"""URLs that are told apart, the latest used."""


@attrs.frozen
class Address:
    """Where deliveries come to *this* client: its own URL, and whether references may mark it."""

    url: str | None = None
    is_marked: bool = True

    def __attrs_post_init__(self) -> None:
        room = LONGEST_URL - (len(REFERENCE) + 2 + LONGEST_REFERENCE if self.is_marked else 0)
        if self.url is not None and not self._is_usable(room):
            raise ConfigurationError(
                f"webhook_url: expected an https URL of at most {room} characters (plain http only"
                f" to this machine)"
            )

        if self.url is not None and reference_in(urlsplit(self.url).query) is not None:
            problem = (
                f"webhook_url: expected a query without {REFERENCE}, which is the client's own"
            )
            raise ConfigurationError(problem)

    def _is_usable(self, room: int) -> bool:
        return isinstance(self.url, str) and len(self.url) <= room and is_safe_url(self.url)

    def given_to(self, request: GenerationRequest) -> GenerationRequest:
        """*request*, with the client's own URL where it names none."""
        if self.url is None or request.webhook_url or "webhook_url" in request.extra:
            return request
        return attrs.evolve(request, webhook_url=self.url)

    def reference_for(self, request: GenerationRequest, new: Callable[[], str]) -> str | None:
        """What the URL of *request* is to carry; None unless it is ours, and may be touched."""
        url = _sent_to(request)
        return new() if self.is_marked and url is not None and url == self.url else None


def with_reference(request: GenerationRequest, reference: str | None) -> GenerationRequest:
    """*request* as it is sent, with *reference* in its webhook URL, which is kept otherwise."""
    url = _sent_to(request)
    if url is None or reference is None:
        return request
    base, hash_mark, fragment = url.partition("#")
    joint = "&" if "?" in base else "?"
    marked = f"{base}{joint}{REFERENCE}={reference}{hash_mark}{fragment}"
    return attrs.evolve(request, webhook_url=marked)


def url_of(request: GenerationRequest) -> str | None:
    """Where *request* asks deliveries to be sent, without a reference; None: nowhere we know."""
    url = _sent_to(request)
    return None if url is None else _MARK.sub("", url)


def _sent_to(request: GenerationRequest) -> str | None:
    return None if "webhook_url" in request.extra else request.webhook_url


def reference_in(query: str) -> str | None:
    """The reference that a URL's *query* carries, or None."""
    try:
        found = parse_qs(query, max_num_fields=100).get(REFERENCE, [""])[-1]
    except ValueError:  # a stranger's query may be anything
        return None
    is_ours = 0 < len(found) <= LONGEST_REFERENCE and found.isascii() and found.isprintable()
    return found if is_ours else None


@attrs.define
class Trust:
    """Whether deliveries come, by the URL they are sent to. Without *own*, they must come first."""

    own: str | None = None
    _missed: OrderedDict[str, int] = attrs.field(init=False, factory=OrderedDict)

    def holds(self, url: str) -> bool:
        """True while the ends of tasks that carry *url* are left to webhooks."""
        return self._count(url) < MISSES

    def came(self, url: str) -> None:
        """A delivery came to *url*."""
        self._set(url, 0)

    def missed(self, url: str) -> bool:
        """A poll found what a delivery should have told; True when that ends the trust."""
        self._set(url, self._count(url) + 1)
        return self._count(url) == MISSES

    def _count(self, url: str) -> int:
        return self._missed.get(url, 0 if url == self.own else MISSES)

    def _set(self, url: str, count: int) -> None:
        self._missed[url] = count
        self._missed.move_to_end(url)
        if len(self._missed) > URLS:
            self._missed.popitem(last=False)
