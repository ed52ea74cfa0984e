"""What a notebook shows of tasks and batches: small pieces of HTML.

Its rule: whatever comes from outside is text, and escaped; only an address that is safe to follow
becomes a picture or a link. Nothing is fetched or read here: the browser gets the pictures. No
script, no colours of its own, so that it looks right on light and on dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Final

from .errors import EggError, dollars
from .models import TaskSnapshot, is_safe_url

if TYPE_CHECKING:
    from .models import Outcome

MOST_SHOWN: Final = 120
"""Cards in one grid: a notebook keeps what it shows, and thousands make it slow."""
_EDGE = "border:1px solid rgba(128,128,128,.35);border-radius:8px;overflow:hidden"
_CARD = f"margin:0;width:100%;max-width:320px;{_EDGE}"
_IMAGE = "display:block;width:100%;height:auto;margin:0"
_TEXT = "padding:6px 10px;font-size:12px;line-height:1.45;overflow-wrap:anywhere;text-align:left"
_COLUMNS = "grid-template-columns:repeat(auto-fill,minmax(170px,1fr))"
_GRID = f"display:grid;gap:10px;align-items:start;{_COLUMNS}"


def task(snapshot: TaskSnapshot, *, prompt: str = "") -> str:
    """A card: the pictures, then status, cost, model and id, or why it failed."""
    pictures = "".join(_picture(url, prompt or snapshot.id) for url in snapshot.urls)
    facts = [snapshot.status, _cost(snapshot.cost), snapshot.model, snapshot.id]
    return _card(pictures, [prompt, _joined(facts), snapshot.error or ""])


def handle(task_id: str, snapshot: TaskSnapshot | None, *, prompt: str = "") -> str:
    """A card for a task that may not have been looked at."""
    if snapshot is not None and snapshot.is_final:
        return task(snapshot, prompt=prompt)
    status = snapshot.status if snapshot else "not looked at yet"
    return _card("", [prompt, _joined([status, task_id]), "await it for the result"])


def outcome(one: Outcome) -> str:
    """A card for an item of a batch: its pictures, or its error."""
    prompt = one.request.prompt if one.request else f"item {one.index}"
    if one.error is not None:
        return failure(prompt, one.error)
    return task(one.unwrap(), prompt=prompt)


def failure(prompt: str, error: EggError) -> str:
    """A card for what came to nothing."""
    return _card("", [prompt, f"{type(error).__name__}: {error}"])


def grid(outcomes: Sequence[Outcome]) -> str:
    """The outcomes of a batch: how many, what they cost, and a card for each."""
    good = sum(one.ok for one in outcomes)
    cost = sum((one.result.cost or Decimal(0) for one in outcomes if one.result), Decimal(0))
    parts = [f"{good:,} of {len(outcomes):,} made", dollars(cost)]
    if len(outcomes) > MOST_SHOWN:
        parts.append(f"the first {MOST_SHOWN} are shown")
    cards = "".join(map(outcome, outcomes[:MOST_SHOWN]))
    return (
        f'<div><p style="margin:4px 0">{_joined(parts)}</p><div style="{_GRID}">{cards}</div></div>'
    )


def batch(begun: int, ended: int) -> str:
    """How far a batch is."""
    if not begun:
        return "<p>a batch, nothing begun: <code>await</code> it, or <code>async with</code> it</p>"
    bar = f'<progress max="{begun}" value="{ended}"></progress>'
    return f"<p>{bar} {ended:,} ended, {begun - ended:,} under way</p>"


def _card(pictures: str, lines: Sequence[str]) -> str:
    text = "<br>".join(escape(line) for line in lines if line)
    caption = f'<figcaption style="{_TEXT}">{text}</figcaption>'
    return f'<figure style="{_CARD}">{pictures}{caption}</figure>'


def _picture(url: str, alt: str) -> str:
    if not is_safe_url(url):
        return ""
    source = escape(url)
    return (
        f'<a href="{source}" target="_blank" rel="noopener noreferrer"><img src="{source}"'
        f' alt="{escape(alt)}" loading="lazy" referrerpolicy="no-referrer" style="{_IMAGE}"></a>'
    )


def _joined(facts: Sequence[str]) -> str:
    return " · ".join(fact for fact in facts if fact)


def _cost(amount: Decimal | None) -> str:
    return "" if amount is None else dollars(amount)
