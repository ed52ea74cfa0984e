"""What `import eggapi_async` costs in CPU, beside httpx alone.

Fresh processes, the least of several: nothing makes an import faster than it is. Public names are
loaded when they are first used, so the client itself has a row of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from .figures import write
from .tables import table

MEASURE = (
    "import time; began = time.process_time(); {statements};"
    " print(1000 * (time.process_time() - began))"
)

STATEMENTS = (
    "import httpx",
    "import eggapi_async",
    "import httpx, eggapi_async",
    "import asyncio, httpx, attrs, cattrs, anyio",
    "from eggapi_async import AsyncEggClient",
)
COLUMNS = ("statement", "CPU ms", "beside `import httpx`")


def imports(*, repeats: int, keep: Path | None = None) -> None:
    """Measure, print the table, and store the figures in *keep*."""
    content = [{"statement": it, "ms": _least(it, repeats)} for it in STATEMENTS]
    write(keep, "import", content)
    sys.stdout.write(imports_table(content) + "\n")


def imports_table(content: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    httpx = content[0]["ms"]
    rows = [
        [f"`{row['statement']}`", f"{row['ms']:.0f}", f"{row['ms'] - httpx:+.0f}"]
        for row in content
    ]
    return table(COLUMNS, rows)


def _least(statements: str, repeats: int) -> float:
    command = [sys.executable, "-c", MEASURE.format(statements=statements)]
    return min(
        float(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(repeats)
    )
