"""`eggapi batch --dry-run`: what a batch would do, and what it would cost. Nothing is sent.

Its rule: every line is checked as the library would check it, so that what passes here is not
refused there; and what has no published price is told as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import click

from ..errors import EggError, InvalidRequestError, dollars
from .inputs import Line, Source, Unreadable
from .past import Past, past
from .session import Session
from .trouble import FAILED, NO_MONEY, OK, PARTLY, complain
from .wording import counted

if TYPE_CHECKING:
    from .. import Estimate, GenerationRequest, ModelEstimate

SHOWN = 10
"""Lines with a problem that are shown."""


def quote(
    session: Session,
    source: Source,
    folder: Path,
    *,
    max_cost: Decimal | None,
    retries_failed: bool,
) -> NoReturn:
    """Say what the batch would do, and leave with an exit code."""
    from .. import estimate

    try:
        with past(None if session.is_emulated else folder) as before:
            check = Check(source, before, retries_failed=retries_failed)
            found = estimate(check.requests())
            known = before.words(source.lines() if source.path else None)
            spent = before.spent() if max_cost is not None else Decimal(0)
    except EggError as error:
        click.get_current_context().exit(complain(error))
    _tell(session, check, found, known)
    is_dear = max_cost is not None and spent + found.total > max_cost
    if max_cost is not None and is_dear:
        before_ = f" beside {dollars(spent)} before" if spent else ""
        allowed = f"more than --max-cost {dollars(max_cost)} allows"
        click.echo(f"{dollars(found.total)}{before_} is {allowed}", err=True)
    click.get_current_context().exit(NO_MONEY if is_dear else check.exit_code)


@attrs.define
class Check:
    """Goes through the lines of *source*, and notes what is wrong with them."""

    _source: Source
    _before: Past
    _retries_failed: bool = attrs.field(kw_only=True)
    problems: list[str] = attrs.field(init=False, factory=list)
    refused: int = attrs.field(init=False, default=0)
    valid: int = attrs.field(init=False, default=0)

    def requests(self) -> Iterator[GenerationRequest]:
        """What would be submitted."""
        for line in self._source.lines():
            request = self._read(line)
            if request is not None and self._is_to_go(line):
                yield request

    def _is_to_go(self, line: Line) -> bool:
        state = self._before.state(line)
        return state == "planned" or (state == "failed" and self._retries_failed)

    def _read(self, line: Line) -> GenerationRequest | None:
        from .. import GenerationRequest

        try:
            request = GenerationRequest.of(_checked(line))
        except InvalidRequestError as error:
            self.refused += 1
            if len(self.problems) < SHOWN:
                self.problems.append(f"{self._source.name}:{line.number}: {_why(line, error)}")
            return None
        self.valid += 1
        return request

    @property
    def exit_code(self) -> int:
        """The exit code that says whether all lines may be sent."""
        if not self.refused:
            return OK
        return PARTLY if self.valid else FAILED


def _checked(line: Line) -> Any:
    return line.item if isinstance(line.item, Unreadable) else line.fields


def _why(line: Line, error: InvalidRequestError) -> str:
    return line.item.problem if isinstance(line.item, Unreadable) else str(error)


# --- words ---------------------------------------------------------------------------------------


def _tell(session: Session, check: Check, found: Estimate, known: str) -> None:
    for problem in check.problems:
        click.echo(f"refused: {problem}", err=True)
    if check.refused > len(check.problems):
        click.echo(f"… and {check.refused - len(check.problems):,} more", err=True)
    if session.is_json:
        click.echo(json.dumps(_as_json(check, found)))
        return
    for line in _table(found):
        click.echo(line)
    if known:
        session.say(f"journal: {known}")
    refused = f", {counted(check.refused, 'line')} refused" if check.refused else ""
    session.say(f"nothing was sent: {counted(found.count, 'task')} to submit{refused}")


def _table(found: Estimate) -> list[str]:
    parts = [*found.per_model, _in_all(found)]
    rows = [("model", "requests", "images", "price")]
    rows += [(p.model, f"{p.requests:,}", f"{p.images:,}", _price(p)) for p in parts]
    width = max(len(row[0]) for row in rows)
    return [f"{a:<{width}}  {b:>8}  {c:>8}  {d:>10}".rstrip() for a, b, c, d in rows]


def _in_all(found: Estimate) -> ModelEstimate:
    from .. import ModelEstimate

    return ModelEstimate(
        model="total",
        requests=found.count,
        images=found.images,
        total=found.total,
        unpriced=found.unpriced,
    )


def _price(part: ModelEstimate) -> str:
    if not part.unpriced:
        return dollars(part.total)
    if part.unpriced == part.requests:
        return "unknown"
    return f"{dollars(part.total)} + {counted(part.unpriced, 'request')} of unknown price"


def _as_json(check: Check, found: Estimate) -> dict[str, Any]:
    return {
        "lines": check.valid + check.refused,
        "refused": check.refused,
        "to_submit": found.count,
        "images": found.images,
        "unpriced": found.unpriced,
        "total": str(found.total),
        "models": [
            {
                "model": part.model,
                "requests": part.requests,
                "images": part.images,
                "unpriced": part.unpriced,
                "total": str(part.total),
            }
            for part in found.per_model
        ],
    }
