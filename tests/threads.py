"""What a test does as another process would, away from the event loop that it looks at."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def on_a_thread(do: Callable[P, T]) -> Callable[P, T]:
    """*do*, on a thread of its own: it may block, where the package may not (`--never-block`)."""

    @wraps(do)
    def done(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(do, *args, **kwargs).result()

    return done
