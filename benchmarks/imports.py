"""What `import eggapi_async` costs in CPU, beside httpx alone.

Fresh processes, the least of several: nothing makes an import faster than it is.
"""

from __future__ import annotations

import subprocess
import sys

from .tables import table

MEASURE = (
    "import time; began = time.process_time(); {statements};"
    " print(1000 * (time.process_time() - began))"
)

STATEMENTS = (
    "import httpx",
    "import eggapi_async",
    "import httpx, eggapi_async",
    "from eggapi_async import AsyncEggClient",
)


def imports(*, repeats: int) -> None:
    """Print the table."""
    httpx = _least("import httpx", repeats)
    rows = []
    for statements in STATEMENTS:
        cost = _least(statements, repeats)
        rows.append([f"`{statements}`", f"{cost:.0f}", f"{cost - httpx:+.0f}"])
    sys.stdout.write(table(("statement", "CPU ms", "beside `import httpx`"), rows) + "\n")


def _least(statements: str, repeats: int) -> float:
    command = [sys.executable, "-c", MEASURE.format(statements=statements)]
    return min(
        float(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(repeats)
    )
