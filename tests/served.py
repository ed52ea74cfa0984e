"""An ASGI application over real TCP on this machine, and the command line as a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

ROOT = Path(__file__).parent.parent


@contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """The base URL at which *app* is served while the block runs; *options* are uvicorn's."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(
            app,
            date_header=False,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
            **options,
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without anything of ours, and with these *changes*."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("EGGAPI_")}
    return {**kept, "PYTHONPATH": str(ROOT), "NO_PROXY": "*", **changes}


def start(*arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "eggapi_async", *arguments],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def emulator_process(*options: str, cwd: Path) -> Iterator[str]:
    """The base URL of `eggapi emulator --port 0` in a process of its own, ended by SIGTERM."""
    process = start("emulator", "--port", "0", *options, cwd=cwd)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip().removeprefix("export EGGAPI_BASE_URL=")
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0
