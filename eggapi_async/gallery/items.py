"""One row of a gallery, as a value, and what all rows come to."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import attrs

from ..errors import InvalidRequestError

VIDEOS: Final = (".mp4", ".webm")


def _check_path(_: object, field: attrs.Attribute[Any], value: str) -> None:
    is_inside = value not in ("", ".") and value[0] != "/" and ".." not in value.split("/")
    if not is_inside or not _is_encodable(value):
        raise InvalidRequestError(field.name, value, "a path inside the gallery's folder")


def _is_encodable(path: str) -> bool:
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


@attrs.frozen
class GalleryPicture:
    """A picture or video: its *path* from the gallery's folder (with `/`), and its size in pixels.

    Without a size (0) its place on the page has the shape that was asked for.
    """

    path: str = attrs.field(validator=_check_path)
    width: int = 0
    height: int = 0

    @property
    def is_video(self) -> bool:
        """True for a file that a `<video>` shows."""
        return self.path.lower().endswith(VIDEOS)

    @property
    def name(self) -> str:
        """The file's name, without the folders it is in."""
        return self.path.rpartition("/")[2]


@attrs.frozen(kw_only=True)
class GalleryItem:
    """One row: what was asked for, and what came of it.

    prompt, model, aspect_ratio, resolution    as in the request; empty where nobody knows
    status      `completed`, `failed`, or any other word
    pictures    the files that are there
    error       why there is none, or not all; None when nothing went wrong
    cost        US dollars, of all pictures of the item together
    duration    seconds from its submission to its end
    task_id     `gen_…`
    """

    prompt: str = ""
    model: str = ""
    aspect_ratio: str = ""
    resolution: str = ""
    status: str = "completed"
    pictures: tuple[GalleryPicture, ...] = ()
    error: str | None = None
    cost: Decimal | None = None
    duration: float | None = None
    task_id: str = ""


@attrs.frozen(kw_only=True)
class Totals:
    """What all rows come to: counts, US dollars, and the seconds that the middle row took."""

    images: int
    videos: int
    failed: int
    waiting: int
    cost: Decimal | None
    duration: float | None

    @classmethod
    def of(cls, items: Iterable[GalleryItem]) -> Totals:
        """The totals of *items*, which are gone through once."""
        images = videos = failed = waiting = 0
        cost: Decimal | None = None
        durations: list[float] = []
        for item in items:
            moving = sum(picture.is_video for picture in item.pictures)
            videos += moving
            images += len(item.pictures) - moving
            failed += item.error is not None
            waiting += item.error is None and not item.pictures
            cost = cost if item.cost is None else (cost or Decimal(0)) + item.cost
            durations += [] if item.duration is None else [item.duration]
        return cls(
            images=images,
            videos=videos,
            failed=failed,
            waiting=waiting,
            cost=cost,
            duration=statistics.median(durations) if durations else None,
        )
