"""A headless Chromium, driven over a pipe in its own DevTools protocol; no driver, no websocket.

Its rule: everything is waited for by its own answer or by a condition, and the browser may resolve
no name, so that whatever a page might ask of a network fails and is seen.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60.0
"""Seconds for any one answer: a bound for a browser that hangs, never a wait."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
ON_3_AND_4 = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4)"
STAY_NICE = "import ctypes; sys.platform == 'linux' and ctypes.CDLL(None).prctl(24, 23, 0, 0, 0)"
LAUNCH = f"{ON_3_AND_4}; {STAY_NICE}; os.execv(sys.argv[3], sys.argv[3:])"
"""The protocol's pipes are the descriptors 3 and 4, which a parent cannot choose by itself. And a
browser of root's would put itself before everybody else on the machine (CAP_SYS_NICE, dropped)."""
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
"""


@cache
def executable() -> str | None:
    """Where a Chromium is that runs, if it is anywhere."""
    found = filter(None, map(shutil.which, NAMES))
    return next((path for path in found if _runs(path)), None)


def _runs(path: str) -> bool:
    """False for a stub, and for a snap, which may read none of our files."""
    if "/snap" in os.path.realpath(path):
        return False
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"Chrom" in done.stdout


class Browser:
    """A running Chromium: a question with its answer at a time, events kept as they come."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads = reads
        self._writes = writes
        self._number = 0
        self._bytes = b""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The answer to a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        _write_all(self._writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._bytes:
            ready, _, _ = select.select([self._reads], [], [], PATIENCE)
            assert ready, "the browser says nothing any more"
            data = os.read(self._reads, 1 << 20)
            assert data, "the browser has ended"
            self._bytes += data
        first, _, self._bytes = self._bytes.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def open(self, path: Path, *, width: int = 1440, height: int = 900, **changes: Any) -> Page:
        """A new tab that shows a file, when it has loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, target, attached["sessionId"])
        page.resize(width, height)
        page.begin(path, **changes)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command to this tab."""
        return self._browser.ask(method, session=self._session, **params)

    def begin(
        self, path: Path, *, dark: bool = False, still: bool = True, scripts: bool = True
    ) -> None:
        """Load a file, and wait until that is done."""
        for domain in ("Page", "Runtime", "Network"):
            self.ask(f"{domain}.enable")
        self.prefer(dark=dark, still=still)
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.ask("Page.navigate", url=path.absolute().as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def prefer(self, *, dark: bool = False, still: bool = True) -> None:
        """What the user prefers: a dark page, and one where nothing moves."""
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def resize(self, width: int, height: int) -> None:
        """Make the window that large; a narrow one is a phone's."""
        is_phone = width < 600
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to; a promise is awaited."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.01)
        return value

    def press(self, key: str, text: str = "") -> None:
        """Press a key and let it go."""
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": CODES.get(key, 0)}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **keys)

    def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.ask("Input.insertText", text=text)

    def addresses(self) -> list[str]:
        """Every address that this tab asked for, blocked ones included."""
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("sessionId") == self._session
            and event["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path) -> None:
        """Keep what the window shows, as a PNG file."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Close the tab."""
        self._browser.ask("Target.closeTarget", targetId=self._target)


CODES = {"Escape": 27, "Enter": 13, "Tab": 9, "End": 35, "Home": 36} | {
    "ArrowLeft": 37,
    "ArrowRight": 39,
}


@contextmanager
def chromium(path: str, folder: Path) -> Iterator[Browser]:
    """The browser at *path*, with an empty profile in *folder*, until the block ends."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    high = [_high(end) for end in (theirs_in, theirs_out)]
    flags = [*FLAGS, f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *map(str, high), path, *flags],
        pass_fds=high,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
    )
    _close(theirs_in, theirs_out, *high)
    try:
        browser = Browser(ours_in, ours_out)
        yield browser
        _end(lambda: browser.ask("Browser.close"))
    finally:
        _close(ours_in, ours_out)
        _reap(process)


def _high(descriptor: int) -> int:
    """The same pipe under a number that cannot be in the way of 3 and 4."""
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _end(goodbye: Callable[[], object]) -> None:
    try:
        goodbye()
    except (AssertionError, OSError):  # it may be gone before it answers
        return


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
