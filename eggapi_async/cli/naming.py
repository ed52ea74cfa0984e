"""What files are called: a template with a few fields, and nothing that leads out of the folder.

Its rule: what users write is parsed, never evaluated, and a template must tell the pictures of one
batch apart. What comes of it is checked again by the library, for every file.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Final

import attrs

from ..errors import InvalidRequestError
from ..models import GenerationRequest, TaskSnapshot, checked_name

FIELDS: Final = ("index", "line", "id", "slug", "model")
_UNIQUE: Final = frozenset({"index", "line", "id"})
_SPEC: Final = re.compile(r"0?[0-9]{0,2}d?", re.ASCII)
_SUFFIX: Final = re.compile(r"\.(\{ext\}|png|jpe?g|webp|mp4)$")
LONGEST: Final = 60
"""Bytes of a field that a file's name may have."""


@attrs.frozen
class Template:
    """A template such as `{index:04d}-{slug}`, without the suffix that follows from the bytes."""

    text: str

    @classmethod
    def of(cls, text: str) -> Template:
        """The template, if it can name files. Raises InvalidRequestError."""
        template = cls(_SUFFIX.sub("", text))
        fields = template._fields()
        for name, spec in fields:
            if name not in FIELDS or not _SPEC.fullmatch(spec):
                allowed = ", ".join(f"{{{known}}}" for known in FIELDS)
                raise InvalidRequestError("--name", text, f"the fields {allowed} only")
            if spec and name not in ("index", "line"):
                raise InvalidRequestError("--name", text, f"no format behind {name!r}")
        if not _UNIQUE & {name for name, _ in fields}:
            raise InvalidRequestError("--name", text, "{index}, {line} or {id} in it")
        template._try(text)
        return template

    def _fields(self) -> list[tuple[str, str]]:
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise InvalidRequestError("--name", self.text, f"a template ({error})") from None
        if any(conversion for _, _, _, conversion in parts):
            raise InvalidRequestError("--name", self.text, "no conversions (!)")
        return [(name, spec or "") for _, name, spec, _ in parts if name is not None]

    def _try(self, text: str) -> None:
        longest = "x" * LONGEST
        sample = self.text.format(index=10**9, line=10**9, id=longest, slug=longest, model=longest)
        try:
            checked_name(sample)
        except InvalidRequestError:
            expected = "a name of at most 200 bytes that stays in the folder"
            raise InvalidRequestError("--name", text, expected) from None

    def name(self, index: int, line: int, request: GenerationRequest, task: TaskSnapshot) -> str:
        """The name for the pictures of *task*, which may lead into folders below."""
        return self.text.format(
            index=index,
            line=line,
            id=_short(re.sub(r"[^A-Za-z0-9_-]", "_", task.id)),
            slug=slug(request.prompt),
            model=slug(request.model),
        )


def slug(text: str) -> str:
    """*text* as a piece of a file's name: letters, digits, `_`, and `-` for all the rest."""
    return _short(re.sub(r"\W+", "-", text.lower())).strip("-") or "untitled"


def _short(text: str) -> str:
    return text.strip("-").encode()[:LONGEST].decode(errors="ignore")
