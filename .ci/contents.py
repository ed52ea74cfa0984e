"""What wheel and sdist in a folder hold, and what the wheel brings along; 1 where it is wrong.

The wheel is the package and nothing else; what tests and measures it is in the sdist only. A plain
install brings httpx, attrs, cattrs and anyio, with what they need (httpcore is httpx's own).
"""

from __future__ import annotations

import re
import sys
import tarfile
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

PLAIN = {"anyio", "attrs", "cattrs", "httpcore", "httpx"}
PACKAGE = {
    "py.typed",
    ".agents/skills/eggapi-async/SKILL.md",
    "gallery/page.css",
    "gallery/page.js",
    "cli/prompts.txt",
}
SOURCE = {
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "zensical.toml",
    "benchmarks/__main__.py",
    "docs/index.md",
    "examples/notebook.ipynb",
    "tests/conftest.py",
    *(f"eggapi_async/{name}" for name in PACKAGE),
}


def wheel(path: Path) -> list[str]:
    """What is wrong with a wheel."""
    with ZipFile(path) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        brought = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    info = metadata.partition("/")[0]
    plain = {re.split(r"[^\w.-]", text)[0] for text in brought if "extra ==" not in text}
    return [
        *(f"lacks {name}" for name in {f"eggapi_async/{n}" for n in PACKAGE} - names),
        *(f"lacks {name}" for name in {f"{info}/licenses/LICENSE"} - names),
        *(f"has {n}" for n in names if not n.startswith(("eggapi_async/", f"{info}/"))),
        *(f"has {name}" for name in names if "__pycache__" in name),
        *(f"brings {name}" for name in plain - PLAIN),
        *(f"does not bring {name}" for name in PLAIN - plain),
    ]


def sdist(path: Path) -> list[str]:
    """What is wrong with a source distribution."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    return [
        *(f"lacks {name}" for name in SOURCE - names),
        *(f"has {name}" for name in names if "__pycache__" in name or name.startswith("site/")),
    ]


def main(folder: Path) -> int:
    """Print what is wrong; how the process is to end."""
    [built], [source] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    found = [f"{built.name} {text}" for text in sorted(wheel(built))]
    found += [f"{source.name} {text}" for text in sorted(sdist(source))]
    print("\n".join(found) or f"{built.name} and {source.name} are whole")  # noqa: T201
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
