"""What holds for every test: virtual time unless marked otherwise, and no task left behind."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from hypothesis import settings

from tests.virtual_time import VirtualLoop, refuse_leftovers

pytest_plugins = ["pytester"]

# The same examples every time, and none too slow for a busy machine.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")

_LOOPS: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


OUR_OWN_PROGRAMS = ["eggapi_async.cli", "eggapi_async.emulator", "eggapi_async.testing"]
"""They may block their event loop: nobody else is on it, or only a test that does what it likes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--never-block`: fail where the package blocks an event loop (needs the extra `dev`)."""
    parser.addoption("--never-block", action="store_true", help="no blocking call on a loop")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    line = "real_time: run on an ordinary event loop, for real sockets, pipes and processes"
    config.addinivalue_line("markers", line)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every async test runs in virtual time, one marked `real_time` in real time."""
    if item.get_closest_marker("real_time"):
        return {"real": lambda: _noted(asyncio.new_event_loop())}
    return {"virtual": lambda: _noted(VirtualLoop())}


def _noted(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    _LOOPS.add(loop)
    return loop


@contextmanager
def never_blocking() -> Iterator[None]:
    """What the package does on a loop that blocks it (a file, a sleep, the database) raises."""
    from blockbuster import blockbuster_ctx

    with blockbuster_ctx("eggapi_async", excluded_modules=OUR_OWN_PROGRAMS) as guard:
        # Held for a moment, to look at the home of a client.
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            guard.functions[name].deactivate()
        yield


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Fail a test that leaves a task running which it started itself."""
    before = _running_tasks()
    with never_blocking() if pyfuncitem.config.getoption("--never-block") else nullcontext():
        result = yield
    refuse_leftovers(_running_tasks() - before)
    return result


def _running_tasks() -> set[asyncio.Task[Any]]:
    open_loops = [loop for loop in _LOOPS if not loop.is_closed()]
    return {task for loop in open_loops for task in asyncio.all_tasks(loop)}
