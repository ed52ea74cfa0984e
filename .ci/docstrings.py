"""How the site reads docstrings: columns of names and meanings become lists.

A griffe extension, named in zensical.toml. In the source such a column is

    limiter   the limits of the key; give one to several clients
              that share a key

which Markdown would run together.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe

_ENTRY = re.compile(r"(?P<names>\S+(?:, \S+)*) {2,}(?P<meaning>\S.*)")


class Columns(griffe.Extension):
    """Turns columns in every docstring into lists."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = as_lists(obj.docstring.value)


def as_lists(text: str) -> str:
    """*text* with its columns as Markdown lists."""
    return "\n\n".join(_paragraph(dedent(paragraph)) for paragraph in text.split("\n\n"))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if not lines or not _ENTRY.fullmatch(lines[0]):
        return text
    told = []
    for line in lines:
        entry = _ENTRY.fullmatch(line)
        if entry:
            names = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            told.append(f"- {names}: {entry['meaning']}")
        else:
            told.append(f"  {line.strip()}")
    return "\n".join(told)
