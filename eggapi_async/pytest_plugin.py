"""Fixtures for tests of programs that use this package; pytest finds them by itself.

Its rule: a test run that uses none of them pays nothing. So this module imports nothing but pytest,
and what a fixture needs is loaded when it is asked for. All fixtures are ordinary ones, made anew
for every test, so that they serve pytest-asyncio, anyio's plugin and plain tests alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .client import AsyncEggClient
    from .emulator import EggEmulator
    from .testing import WebhookSender

__all__ = [
    "egg_client",
    "egg_clock",
    "egg_emulator",
    "egg_emulator_options",
    "egg_webhooks",
    "pytest_configure",
]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    line = "egg_real_time: let time pass though fixtures of eggapi-async are used"
    config.addinivalue_line("markers", line)


@pytest.fixture
def egg_clock(request: pytest.FixtureRequest) -> Callable[[], float]:
    """The clock of the emulator and of the webhooks: the event loop's, which jumps where your
    conftest.py imports `pytest_asyncio_loop_factories` from eggapi_async.testing."""
    if request.node.get_closest_marker("egg_real_time"):
        from time import time

        return time
    from .testing import virtual_clock

    return virtual_clock


@pytest.fixture
def egg_emulator_options() -> dict[str, Any]:
    """Arguments of the `EggEmulator`; override it to change them, as `{"per_second": 5}`."""
    return {}


@pytest.fixture
def egg_emulator(
    egg_clock: Callable[[], float], egg_emulator_options: dict[str, Any]
) -> EggEmulator:
    """An Egg API in this process: `fail_next(Fault.lost())` is trouble on demand, `accepted` are
    the ids of what was bought, `delivering(app)` sends its webhooks."""
    from .emulator import EggEmulator
    from .testing.webhooks import SECRET

    return EggEmulator(**{"clock": egg_clock, "webhook_secret": SECRET, **egg_emulator_options})


@pytest.fixture
def egg_client(egg_emulator: EggEmulator) -> AsyncEggClient:
    """An `AsyncEggClient` of the `egg_emulator`; there is nothing to close."""
    from .testing import connect

    return connect(egg_emulator)


@pytest.fixture
def egg_webhooks(egg_clock: Callable[[], float]) -> WebhookSender:
    """Sends signed webhooks to your receiver: `await egg_webhooks.deliver(app, task.id)`. The
    receiver needs its `secret`, and `now=egg_clock`."""
    from .testing import WebhookSender

    return WebhookSender(now=egg_clock)
