"""The test kit in test runs of its own: what docs/testing.md shows is what is tried."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.pages import named

PAGE = "docs/testing.md"
QUIET = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:randomly", "-W", "error"]
SCOPE = ["-o", "asyncio_default_fixture_loop_scope=function"]


def run(
    pytester: pytest.Pytester, *names: str, options: Sequence[str] = SCOPE, **files: str
) -> pytest.RunResult:
    """Run the page's blocks of these names, and other files, as a test suite of its own."""
    texts = {name: named(PAGE, name) for name in names}
    pytester.makepyfile(**texts, **files)
    pytester.syspathinsert()
    return pytester.runpytest_inprocess(*QUIET, *options)


@pytest.mark.parametrize("mode", ["auto", "strict"])
@pytest.mark.parametrize(
    ("block", "passed"), [("test_bot", 3), ("test_time", 3), ("test_webhooks", 3)]
)
def test_the_page_works_as_pasted(
    pytester: pytest.Pytester, mode: str, block: str, passed: int
) -> None:
    """In both modes of pytest-asyncio."""
    result = run(pytester, "conftest", "bot", block, options=[*SCOPE, "-o", f"asyncio_mode={mode}"])
    result.assert_outcomes(passed=passed)


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_readme_works_as_pasted(pytester: pytest.Pytester, mode: str) -> None:
    """Its two files, and nothing else."""
    files = {name: named("README.md", name) for name in ("conftest", "test_bot")}
    result = run(pytester, options=[*SCOPE, "-o", f"asyncio_mode={mode}"], **files)
    result.assert_outcomes(passed=2)


def test_the_plugin_of_anyio_takes_the_same_fixtures(pytester: pytest.Pytester) -> None:
    """On asyncio and on trio, both in virtual time; pytest-asyncio need not be there."""
    result = run(pytester, "test_anyio", options=["-p", "no:asyncio"])
    result.assert_outcomes(passed=2)


OTHERS = """
import asyncio
import time

import pytest

from eggapi_async.testing import VirtualLoop

async def test_that_uses_nothing_of_ours():
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)

@pytest.mark.egg_real_time
async def test_in_real_time(egg_client, egg_clock):
    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)
    assert abs(egg_clock() - time.time()) < 60
    assert (await egg_client.tasks_page()).items == ()

def test_without_a_loop(egg_clock, egg_emulator, egg_webhooks):
    assert egg_clock() == 1000
    assert repr(egg_emulator) == "<EggEmulator accepted=0 requests=0>"
    assert egg_webhooks.secret not in repr(egg_webhooks)
"""


def test_other_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    """Only who asks for a fixture of ours, and does not say otherwise, has virtual time."""
    options = [*SCOPE, "-o", "asyncio_mode=auto", "--strict-markers"]
    result = run(pytester, "conftest", options=options, test_others=OTHERS)
    result.assert_outcomes(passed=3)


SOCKET = """
import asyncio
import socket

async def test_with_a_socket(egg_clock):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_recv(ours, 1)
"""


def test_a_real_socket_is_named_as_the_trouble(pytester: pytest.Pytester) -> None:
    """Instead of a test that hangs, or has luck."""
    options = [*SCOPE, "-o", "asyncio_mode=auto"]
    result = run(pytester, "conftest", options=options, test_socket=SOCKET)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*RealSocketError: a socket or pipe is open*"])


def test_without_the_hook_the_fixtures_work_in_real_time(pytester: pytest.Pytester) -> None:
    """Nothing is forced on a suite that did not ask for it."""
    suite = """
    import pytest

    @pytest.mark.asyncio
    async def test_a_request(egg_client):
        assert (await egg_client.tasks_page()).items == ()
    """
    run(pytester, test_it=suite).assert_outcomes(passed=1)


def test_the_fixtures_are_found_and_say_what_they_are(pytester: pytest.Pytester) -> None:
    """By the entry point, in a process of its own that names no plugin."""
    pytester.makepyfile(
        "def test_it(egg_client, egg_emulator): assert egg_emulator.log is not None"
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    shown = pytester.runpytest_subprocess("--fixtures", "-q")
    shown.stdout.fnmatch_lines_random(["egg_client*", "*An `AsyncEggClient` of*"])


def test_a_run_that_uses_none_of_it_loads_next_to_nothing() -> None:
    """Beside pytest: the plugin itself, and the package's own lazy door."""
    script = "import sys, pytest; before = set(sys.modules); import eggapi_async.pytest_plugin; "
    script += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    ours = ["eggapi_async", "eggapi_async._version", "eggapi_async.pytest_plugin"]
    assert done.stdout.split() == ours
