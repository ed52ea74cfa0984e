"""One task: how long it takes, how it ends, what it costs, and how the API shows it.

Its rule: a task knows its whole life from the start, so its state is a pure function of the clock.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

import attrs

MEDIAN_SECONDS = 12.0
SIGMA = math.log(25.0 / MEDIAN_SECONDS) / 1.645  # 95 % of the tasks take less than 25 s
FAILURES = {
    "forbidden": "Content moderation: prompt contains prohibited content",
    "broken": "Provider error: all providers are unavailable",
}
"""Words in a prompt that make its task fail, and the error it fails with."""

End = Literal["drawn", "never", "at once"]
Status = Literal["pending", "processing", "completed", "failed"]


@attrs.frozen
class Task:
    """A task from submission to its end, in unix seconds; infinite if it never ends."""

    id: str
    created_at: float
    started_at: float
    completed_at: float
    fields: Mapping[str, Any]
    """The checked body of the request."""
    error: str | None
    """What it will fail with, or None if it will be completed."""

    @property
    def model(self) -> str:
        return str(self.fields["model"])

    @property
    def type(self) -> str:
        """The API's `type`: what sort of generation the fields ask for."""
        if self.is_video:
            return "video_generate"
        return "image_edit" if self.fields.get("image_urls") else "image_generate"

    @property
    def is_video(self) -> bool:
        return self.model.startswith("veo")

    @property
    def units(self) -> int:
        """How many outputs are made and billed."""
        return int(self.fields.get("num_outputs", 1))

    @property
    def price(self) -> Decimal:
        """US dollars, if the task is completed."""
        if self.model != "nanobanana-pro":
            return Decimal("0.010") * self.units
        unit = Decimal("0.032") if self.fields.get("resolution") == "4k" else Decimal("0.016")
        return unit * self.units

    def status(self, now: float) -> Status:
        if now < self.started_at:
            return "pending"
        if now < self.completed_at:
            return "processing"
        return "failed" if self.error else "completed"

    def output_paths(self) -> list[str]:
        """The path of every output on the host of the emulator."""
        suffix = "mp4" if self.is_video else "png"
        token = self.id.removeprefix("gen_")
        return [f"/outputs/{token}-{n}.{suffix}" for n in range(1, self.units + 1)]


def new_task(
    fields: dict[str, Any], *, key: str, now: float, speed: float = 1.0, end: End = "drawn"
) -> Task:
    """The task that `fields` ask for, submitted `now`; id and durations are drawn from `key`."""
    waited, worked = _durations(random.Random(key), fields=fields, speed=speed)
    started = now if end == "at once" else now + waited
    ended = {"drawn": started + worked, "never": math.inf, "at once": now}[end]
    token = hashlib.sha256(key.encode()).hexdigest()[:24]
    error = _failure(str(fields["prompt"]))
    return Task(f"gen_{token}", now, started, ended, MappingProxyType(fields), error)


def shown(task: Task, *, now: float, origin: str, nulls: bool = False) -> dict[str, Any]:
    """The API's task object. `origin` is that of the outputs; `nulls`: absent fields are null."""
    status = task.status(now)
    ended = status in ("completed", "failed")
    view = {
        "id": task.id,
        "status": status,
        "model": task.model,
        "type": task.type,
        "output": _output(task, origin=origin) if status == "completed" else None,
        "error": task.error if status == "failed" else None,
        "cost": dollars(task.price) if status == "completed" else "$0.00",
        "created_at": rfc3339(task.created_at),
        "started_at": None if status == "pending" else rfc3339(task.started_at),
        "completed_at": rfc3339(task.completed_at) if ended else None,
    }
    return view if nulls else {name: value for name, value in view.items() if value is not None}


def dollars(amount: Decimal) -> str:
    """Money as task objects and the usage summary write it."""
    return f"${amount:.4f}"


def rfc3339(seconds: float) -> str:
    """Unix seconds as the documents write times: UTC and whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _durations(
    dice: random.Random, *, fields: Mapping[str, Any], speed: float
) -> tuple[float, float]:
    total = dice.lognormvariate(math.log(MEDIAN_SECONDS), SIGMA) / speed
    total *= 2 if fields.get("resolution") == "4k" else 1
    waited = total * dice.uniform(0.1, 0.2)
    return waited, total - waited


def _failure(prompt: str) -> str | None:
    return next((error for word, error in FAILURES.items() if word in prompt.lower()), None)


def _output(task: Task, *, origin: str) -> dict[str, Any]:
    urls = [origin + path for path in task.output_paths()]
    output: dict[str, Any] = {"url": urls[0]}
    if len(urls) > 1:
        output["urls"] = urls
    if task.is_video:
        output["duration_seconds"] = task.fields.get("duration", 8)
    return output
