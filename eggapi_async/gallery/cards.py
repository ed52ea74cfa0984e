"""The cards of the page: one for every picture, and one for everything that is not there.

Its rule: no card has a style of its own, which the page's policy would refuse. The shape of a
picture is one of a fixed set of classes, so that its place is kept before it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from ..errors import dollars
from .items import GalleryItem, GalleryPicture
from .words import address, escaped, seconds

LONG: Final = 110
"""Characters of a text from which on the page folds it."""
ALT: Final = 200
"""Characters of a prompt that describe its picture to those who do not see it."""

_NARROWEST, _WIDEST, _STEP = 40, 300, 2
"""Shapes of pictures on the page: width in hundredths of the height."""
_USUAL = 16 / 9
"""What the service makes where nothing else is asked for."""
_WORDS = {"failed": "Failed", "uncertain": "Uncertain", "completed": "Not here"}


def shapes() -> str:
    """The style of all shapes."""
    steps = range(_NARROWEST, _WIDEST + 1, _STEP)
    return "".join(f".r{n}{{--r:{n / 100:g}}}" for n in steps)


def cards(item: GalleryItem) -> Iterator[str]:
    """What the page shows of one row."""
    for number, picture in enumerate(item.pictures, 1):
        yield _picture_card(item, picture, number)
    if item.error is not None or not item.pictures:
        yield _tile_card(item)


def _picture_card(item: GalleryItem, picture: GalleryPicture, number: int) -> str:
    shape = _shape(picture.width / picture.height if picture.height else _asked(item))
    facts = _facts(_facts_of(item, picture, number))
    return (
        f'<li class="card {shape}"><figure>'
        f'<a class="open" href="{address(picture.path)}">{_shown(item, picture)}</a>'
        f"<figcaption>{_named(item, picture)}{facts}</figcaption></figure></li>\n"
    )


def _named(item: GalleryItem, picture: GalleryPicture) -> str:
    name = escaped(picture.name)
    return _folded("prompt", item.prompt) or f'<p class="prompt file"><bdi>{name}</bdi></p>'


def _shown(item: GalleryItem, picture: GalleryPicture) -> str:
    size = f' width="{picture.width}" height="{picture.height}"' if picture.height else ""
    source, words = address(picture.path), escaped(_described(item, picture))
    if not picture.is_video:
        return f'<img src="{source}" alt="{words}"{size} loading="lazy" decoding="async">'
    video = f'<video src="{source}#t=0.1" aria-label="{words}"{size}'  # no black first frame
    return f'{video} preload="metadata" loading="lazy" muted playsinline></video>'


def _described(item: GalleryItem, picture: GalleryPicture) -> str:
    kind = "Video: " if picture.is_video else ""
    words = item.prompt or picture.name
    return kind + (words if len(words) <= ALT else words[:ALT].rstrip() + "…")


def _tile_card(item: GalleryItem) -> str:
    kind = "card" if item.error is None else "card failed"
    reason = _folded("reason", item.error or "")
    caption = _folded("prompt", item.prompt) + _facts(_facts_of(item, None))
    return (
        f'<li class="{kind} {_shape(_asked(item))}">'
        f'<div class="tile"><p class="what"><bdi>{escaped(_state(item))}</bdi></p>{reason}</div>'
        f'<div class="caption">{caption}</div></li>\n'
    )


def _state(item: GalleryItem) -> str:
    if item.pictures:
        return "Not all here"
    return _WORDS.get(item.status) or item.status.capitalize() or "Not here"


def _folded(kind: str, text: str) -> str:
    """A text of any length and script; a long one shows its start until it is opened."""
    if not text:
        return ""
    shown = f'class="{kind}" lang="" dir="auto">{escaped(text)}'
    if len(text) <= LONG:
        return f"<p {shown}</p>"
    return f"<details><summary {shown}</summary></details>"


def _shape(ratio: float) -> str:
    nearest = round(ratio * 100 / _STEP) * _STEP
    return f"r{min(_WIDEST, max(_NARROWEST, nearest))}"


def _asked(item: GalleryItem) -> float:
    """Width by height of what was asked for."""
    found = re.fullmatch(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", item.aspect_ratio)
    return int(found[1]) / int(found[2]) if found else _USUAL


# --- facts ---------------------------------------------------------------------------------------

Fact = tuple[str, str, bool]
"""A name, its value, and whether it stands on the card too, not only beside the full picture."""


def _facts_of(item: GalleryItem, picture: GalleryPicture | None, number: int = 0) -> Iterator[Fact]:
    many = len(item.pictures)
    if picture and many > 1:
        yield "Picture", f"{number} of {many}", True
    yield "Model", item.model, True
    yield "Resolution", item.resolution, True
    yield "Shape", item.aspect_ratio, False
    if picture and picture.height:
        yield "Size", f"{picture.width} × {picture.height}", False
    if item.duration is not None:
        yield "Time", seconds(item.duration), True
    if item.cost is not None:
        yield "Cost", dollars(item.cost) + (f" for {many}" if many > 1 else ""), True
    yield "Task", item.task_id, False
    yield "File", picture.path if picture else "", False


def _facts(facts: Iterable[Fact]) -> str:
    rows = "".join(_fact(*fact) for fact in facts if fact[1])
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _fact(name: str, value: str, is_brief: bool) -> str:
    kind = "" if is_brief else ' class="more"'
    return f"<div{kind}><dt>{name}</dt><dd><bdi>{escaped(value)}</bdi></dd></div>"
