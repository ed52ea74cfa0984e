"""What holds for every test: virtual time unless marked otherwise, and no task left behind."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest
from hypothesis import settings

from tests.virtual_time import VirtualLoop, refuse_leftovers

pytest_plugins = ["pytester"]

# The same examples every time, and none too slow for a busy machine.
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")

_LOOPS: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """Fail a test that leaves a task running which it started itself."""
    before = _running_tasks()
    result = yield
    refuse_leftovers(_running_tasks() - before)
    return result


def _running_tasks() -> set[asyncio.Task[Any]]:
    open_loops = [loop for loop in _LOOPS if not loop.is_closed()]
    return {task for loop in open_loops for task in asyncio.all_tasks(loop)}
