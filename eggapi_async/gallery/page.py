"""The text of the page: a head, a card for every picture and every failure, a tail.

Its rule: whatever comes from outside is text. It is escaped, kept in an element of its own so that
its direction ends with it, and rid of what no page may hold. The style and the script are the only
ones that the page's policy lets run, known by their hashes; so there is no style in an element, and
the shape of a picture is one of a fixed set of classes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator
from importlib.resources import files
from itertools import islice
from typing import Final

from .._version import __version__
from ..errors import dollars
from .cards import cards, shapes
from .items import GalleryItem, Totals
from .words import escaped, seconds

PART: Final = 200
"""Rows of a part, where there are more than two: a browser draws only the parts in sight."""

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M8 1c3 0 5 4.6 5 8a5 5.6 0 0 1-10 0c0-3.4 2-8 5-8z' fill='%23d9a441'/%3E%3C/svg%3E"
)


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


STYLE: Final = _own("page.css") + shapes()
SCRIPT: Final = _own("page.js")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self' file: data:",  # data: is the icon; 'self' is nothing on a disk
        "media-src 'self' file:",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


def render(items: Iterable[GalleryItem], *, title: str) -> str:
    """The whole page: `chunks` put together."""
    return "".join(chunks(items, title=title))


def chunks(items: Iterable[GalleryItem], *, title: str) -> Iterator[str]:
    """The page in pieces, in order, so that no page of any length is ever held whole.

    *items* are gone through twice, since the totals stand at the top; an iterator is listed first.
    The page belongs into the folder that the pictures' paths start from.
    """
    rows = items if isinstance(items, Collection) else tuple(items)
    yield _head(title, Totals.of(rows))
    yield from _parts(rows) if len(rows) > 2 * PART else _listed(rows)
    yield _TAIL


def _parts(rows: Iterable[GalleryItem]) -> Iterator[str]:
    rest, start = iter(rows), 0
    while part := tuple(islice(rest, PART)):
        end = start + len(part)
        yield f'<section class="part"><h3>{start + 1:,} to {end:,}</h3>\n'
        yield from _listed(part)
        yield "</section>\n"
        start = end


def _listed(rows: Iterable[GalleryItem]) -> Iterator[str]:
    yield '<ul class="cards">\n'
    for item in rows:
        yield from cards(item)
    yield "</ul>\n"


# --- head and tail -------------------------------------------------------------------------------


def _head(title: str, totals: Totals) -> str:
    numbers = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in _sums(totals)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="eggapi-async {__version__}">
<link rel="icon" href="{_ICON}">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header class="top">
<h1 lang="" dir="auto">{escaped(title)}</h1>
<dl class="sums">{numbers}</dl>
</header>
<main>
<form class="tools" role="search" autocomplete="off">
<label class="find"><span class="unseen">Filter by prompt, model or file</span>
<input type="search" name="words" placeholder="Filter" spellcheck="false" enterkeyhint="search">
</label>
{_only_failures(totals)}<output class="shown" role="status"></output>
</form>
<h2 class="unseen">Pictures</h2>
<div class="all">
"""


def _sums(totals: Totals) -> Iterator[tuple[str, str]]:
    if totals.images or not totals.videos:
        yield ("image" if totals.images == 1 else "images"), f"{totals.images:,}"
    if totals.videos:
        yield ("video" if totals.videos == 1 else "videos"), f"{totals.videos:,}"
    if totals.failed:
        yield "failed", f"{totals.failed:,}"
    if totals.waiting:
        yield "not here yet", f"{totals.waiting:,}"
    if totals.cost is not None:
        yield "spent", dollars(totals.cost)
    if totals.duration is not None:
        yield "typical", seconds(totals.duration)


def _only_failures(totals: Totals) -> str:
    if not totals.failed:
        return ""
    box = '<input type="checkbox" name="failures">'
    return f'<label class="only">{box} Only failures</label>\n'


def _button(name: str, label: str, drawn: str, more: str = "") -> str:
    drawing = f'<svg viewBox="0 0 20 20" aria-hidden="true"><path d="{drawn}"/></svg>'
    return f'<button type="button" name="{name}" aria-label="{label}"{more}>{drawing}</button>'


_TAIL = f"""</div>
<p class="none" hidden>Nothing matches.</p>
</main>
<dialog class="view" aria-labelledby="place">
<div class="stage"></div>
<div class="side">
<p class="place" id="place" role="status"><span></span><span class="unseen"></span></p>
<div class="moves">
{_button("back", "Previous picture", "M12 4 6 10l6 6")}
{_button("on", "Next picture", "m8 4 6 6-6 6", " autofocus")}
{_button("close", "Close", "m5 5 10 10M15 5 5 15")}
</div>
<div class="words" tabindex="0" role="region" aria-label="About this picture"></div>
</div>
</dialog>
<script>{SCRIPT}</script>
</body>
</html>
"""
