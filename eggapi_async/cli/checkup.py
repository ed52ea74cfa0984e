"""What `eggapi doctor` looks at: each check gives a `Finding`.

Its rule: nothing is bought, nothing is left behind, and no finding shows the key, or the password
of a proxy. A check whose ground is missing says so instead of guessing.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import attrs

from .._version import __version__
from ..errors import (
    AuthenticationError,
    ConnectionFailedError,
    EggError,
    InsufficientBalanceError,
    PermissionDeniedError,
)
from .trouble import FAILED, NO_KEY, OK

if TYPE_CHECKING:
    from .. import AsyncEggClient

State = Literal["ok", "note", "bad"]
PATIENCE: Final = 10.0
"""Seconds for one look at the service."""
SKEW_NOTED, SKEW_BAD = 30.0, 240.0
"""Seconds between two clocks: webhooks may be 300 old, and take a while on their way."""
LIBRARIES: Final = ("httpx", "httpcore", "attrs", "cattrs", "anyio")
EXTRAS: Final = {"server": "uvicorn", "redis": "redis", "otel": "opentelemetry"}


@attrs.frozen
class Finding:
    """What a check has found, what to do about it, and with which code the command then ends."""

    what: str
    state: State
    told: str
    advice: str = ""
    code: int = OK


def bad(what: str, told: str, advice: str, *, code: int = FAILED) -> Finding:
    """A finding with which commands will fail."""
    return Finding(what, "bad", told, advice, code)


# --- this machine --------------------------------------------------------------------------------


def python() -> Finding:
    """The interpreter; an older one than the package needs could not have come here."""
    told = f"{platform.python_version()}, {platform.python_implementation()} on {sys.platform}"
    return Finding("python", "ok", told)


def versions() -> Finding:
    """Ours, and those of what it stands on."""
    found = [f"{name} {version(name)}" for name in LIBRARIES]
    return Finding("versions", "ok", f"eggapi-async {__version__}; {', '.join(found)}")


def extras() -> Finding:
    """Which optional parts are there."""
    there = [name for name, module in EXTRAS.items() if find_spec(module) is not None]
    return Finding("extras", "ok", ", ".join(["cli", *there]))


def folder(path: Path) -> Finding:
    """Whether files can be made in *path*, or where it will be made; leaves none."""
    home = next(place for place in (path, *path.absolute().parents) if place.exists())
    probe = home / f".eggapi-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        told = f"{home}: nothing can be written here ({error.strerror})"
        return bad("folder", told, "name another with -o DIR")
    return Finding("folder", "ok", f"{home}: files can be written")


# --- the way to the service ----------------------------------------------------------------------


def proxy(base_url: str) -> Finding:
    """The proxy that the environment names for the service, without its password."""
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    if not named or urllib.request.proxy_bypass(parts.hostname or ""):
        return Finding("proxy", "ok", "none")
    return Finding("proxy", "ok", f"by way of {without_secrets(named)}")


def without_secrets(url: str) -> str:
    """A proxy's address without user and password."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


async def service(egg: AsyncEggClient, *, has_key: bool, where: str) -> list[Finding]:
    """One look at the task list, which costs nothing: is the service there, is the key good?"""
    began = time.monotonic()
    try:
        await egg.tasks_page(per_page=1)
    except ConnectionFailedError as error:
        return [bad("service", f"{where}: {error}", reached_by(error))]
    except (AuthenticationError, PermissionDeniedError) as error:
        return [_there(where, began), *([_refused(error)] if has_key else [])]
    except EggError as error:
        return [bad("service", f"{where} answers: {error}", "try later; is this the base URL?")]
    return [_there(where, began), *([Finding("key", "ok", "accepted")] if has_key else [])]


def _there(where: str, began: float) -> Finding:
    trust = ", certificate verified" if where.startswith("https:") else ""
    return Finding("service", "ok", f"{where} answers in {time.monotonic() - began:.2f} s{trust}")


def _refused(error: EggError) -> Finding:
    if isinstance(error, InsufficientBalanceError):
        return Finding("key", "note", f"accepted, but: {error}", "top up the account")
    return bad("key", f"refused: {error}", "is it this service's, and still valid?", code=NO_KEY)


def reached_by(error: ConnectionFailedError) -> str:
    """What to look at where the service was not reached."""
    if "CERTIFICATE" in str(error).upper():
        return "is something between that opens TLS? SSL_CERT_FILE names its certificate"
    return "is the network there, the base URL right, a proxy needed?"


def clock(base_url: str) -> Finding:
    """This machine's clock beside the service's, by the `Date` of an answer to nobody."""
    before = time.time()
    date = _date_of(base_url)
    if date is None:
        return Finding("clock", "note", "not compared: no answer with a readable Date")
    skew = (before + time.time()) / 2 - date
    return judged(skew)


def judged(skew: float) -> Finding:
    """What it means that this machine is *skew* seconds ahead."""
    told = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the service"
    if abs(skew) < SKEW_NOTED:
        return Finding("clock", "ok", told)
    advice = "set the clock: webhooks more than 300 s old are refused"
    return (
        bad("clock", told, advice)
        if abs(skew) > SKEW_BAD
        else Finding("clock", "note", told, advice)
    )


def _date_of(base_url: str) -> float | None:
    """The `Date` of any answer, as Unix seconds; the key is not sent."""
    request = urllib.request.Request(
        f"{base_url}/v1/tasks", headers={"User-Agent": "eggapi-doctor"}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            text = answer.headers.get("date")
    except urllib.error.HTTPError as error:
        text = error.headers.get("date")
        error.close()
    except OSError:
        return None
    return date_in(text or "")


def date_in(text: str) -> float | None:
    """Unix seconds of an HTTP date; None for anything else."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
