"""The environment's switch: EGGAPI_LOG=info or debug shows the package's log on standard error.

For a look at a program as it is. Where logging is configured already, only the level is set: the
lines go where all others go. Loaded only where the variable is set.
"""

from __future__ import annotations

import logging
from typing import Final

from .errors import ConfigurationError

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO}
FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Ours, so that it is known again."""


def show(level: str) -> None:
    """Show the log from *level* on. Raises ConfigurationError for a level that is none."""
    if level.lower() not in LEVELS:
        raise ConfigurationError(f"EGGAPI_LOG: expected debug or info, got {level!r}")
    log = logging.getLogger("eggapi_async")
    log.setLevel(LEVELS[level.lower()])
    if logging.getLogger().handlers or any(isinstance(one, _Console) for one in log.handlers):
        return
    handler = _Console()
    handler.setFormatter(logging.Formatter(FORMAT))
    log.addHandler(handler)
