"""Redis and PostgreSQL servers of one's own, on Unix sockets, for as long as a block runs.

The programs are those that the system has; where it has none, tests that need them are skipped and
say so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

PATIENCE: Final = 60.0
"""Seconds that a server may take to start or stop on a busy machine."""

REDIS: Final = shutil.which("redis-server")


def postgres_program(name: str) -> str | None:
    """Where a program of PostgreSQL is; Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name)
    paths = [os.environ.get("PATH", ""), *map(str, reversed(folders))]
    return shutil.which(name, path=os.pathsep.join(paths))


POSTGRES: Final = postgres_program("postgres") and postgres_program("initdb")

needs_redis = pytest.mark.skipif(REDIS is None, reason="needs redis-server, which is not here")
needs_postgres = pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL, which is not here")


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short name: that of a socket may not be long."""
    path = Path(tempfile.mkdtemp(prefix="egg-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@attrs.define
class RedisServer:
    """A Redis that forgets everything when it is stopped."""

    path: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self.path}/redis"

    def start(self) -> None:
        """Return when it answers."""
        assert REDIS is not None
        socket = self.path / "redis"
        options = [
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--dir",
            str(self.path),
        ]
        self._process = subprocess.Popen([REDIS, *options], stdout=subprocess.DEVNULL)
        wait_for(socket, self._process)

    def stop(self) -> None:
        """Return when it is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A Redis that runs."""
    with folder() as path:
        server = RedisServer(path)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres_server() -> Iterator[str]:
    """The connection string of a PostgreSQL, run by an ordinary user: it refuses root."""
    with folder() as path:
        user = {} if os.geteuid() else {"user": "nobody", "group": "nogroup", "extra_groups": []}
        if user:
            shutil.chown(path, "nobody", "nogroup")
        data = path / "data"
        quiet = {"stdout": subprocess.DEVNULL, "cwd": path, **user}
        initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
        assert initdb is not None
        assert postgres is not None
        new = [initdb, "-D", str(data), "-U", "egg", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run([*new, "--no-locale"], check=True, timeout=PATIENCE, **quiet)  # type: ignore[call-overload]
        options = ["-k", str(path), "-c", "listen_addresses=", "-c", "fsync=off"]
        command = [postgres, "-D", str(data), *options, "-c", "max_connections=100"]
        with (path / "log").open("wb") as said:
            process = subprocess.Popen(command, stderr=said, **quiet)  # type: ignore[call-overload]
        try:
            wait_for(path / ".s.PGSQL.5432", process)
            while b"ready to accept connections" not in (path / "log").read_bytes():
                assert process.poll() is None, "it has ended"
                time.sleep(0.05)
            yield f"host={path} user=egg dbname=postgres connect_timeout=60"
        finally:
            process.send_signal(signal.SIGINT)  # at once, whoever is still connected
            process.wait(PATIENCE)


def wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until there is a socket."""
    until = time.monotonic() + PATIENCE
    while not socket.exists():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < until, "it does not start"
        time.sleep(0.02)
