"""By what names a batch knows its lines, so that the same line is the same in every run.

Its rule: a line is what it asks for, and of several alike the first, the second and so on, wherever
they stand. So lines may be added, removed and moved between runs, and a changed one is a new one. A
line that an earlier run has kept brings its name along, as long as nobody has changed it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs


@attrs.define
class Keys:
    """Gives names to the lines of one input, asked in their order."""

    _seen: Counter[str] = attrs.field(factory=Counter)

    def of(self, fields: Mapping[str, Any], *, given: str | None) -> str:
        """The name of a line that asks for *fields*; *given* is what it was called before."""
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        if given is not None and given.startswith(f"{digest}/"):
            return given
        self._seen[digest] += 1
        return f"{digest}/{self._seen[digest]}"
