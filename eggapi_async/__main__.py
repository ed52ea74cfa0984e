"""The command `eggapi`; says what to install where the extra `cli` is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as exc:
        if exc.name not in ("click", "rich"):
            raise
        sys.exit("The command line needs an extra: pip install 'eggapi-async[cli]'")
    run()


if __name__ == "__main__":
    main()
