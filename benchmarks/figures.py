"""What a look measured, as a file: the figures with their setting, kept so that pages are made of
them and of nothing else.

A file holds one look. Several of one look are merged when they are read (`merging`), never here.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

PACKAGES = (
    "eggapi-async",
    "httpx",
    "httpx-aiohttp",
    "aiohttp",
    "replicate",
    "fal-client",
    "runwayml",
    "openai",
)
NOT_INSTALLED = "not installed"
DIGITS = 6
"""Significant digits that are kept: more than any measurement deserves."""


@attrs.frozen
class Setting:
    """Where and when: *date* as YYYY-MM-DD (UTC), *packages* by name with their versions."""

    date: str
    python: str
    system: str
    cores: int
    packages: dict[str, str]


@attrs.frozen
class Figures:
    """One look's *content*, whose shape is the look's own, and the setting it comes from."""

    look: str
    setting: Setting
    content: Any


def here(packages: Sequence[str] = PACKAGES) -> Setting:
    """The setting of this process."""
    return Setting(
        date=today(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.machine()}",
        cores=_cores(),
        packages={name: _version(name) for name in packages},
    )


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()


def write(path: Path | None, look: str, content: Any) -> None:
    """Store *content* with the setting of this process in *path*; nothing if it is None."""
    if path is None:
        return
    whole = {"look": look, "setting": attrs.asdict(here()), "content": _rounded(content)}
    path.write_text(json.dumps(whole, indent=1) + "\n")


def read(path: Path) -> Figures:
    """What `write` stored; SystemExit names the file that holds something else."""
    try:
        whole = json.loads(path.read_text())
        setting = Setting(**whole["setting"])
        return Figures(str(whole["look"]), setting, whole["content"])
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise SystemExit(f"{path}: not figures as `--json` writes them: {exc!r}") from None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
