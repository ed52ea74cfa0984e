"""What is known of one open task, and the two ways to ask about it. Values; they decide nothing."""

from __future__ import annotations

import math

import attrs

from ._listing import Spot
from ._rhythm import Rhythm


@attrs.frozen
class Peek:
    """Ask for one task by name."""

    task_id: str


@attrs.frozen
class Sweep:
    """Read one page of the list."""

    page: int


Ask = Peek | Sweep


@attrs.define(eq=False)
class Watched:
    """What is known of one open task."""

    since: float  # when it was submitted; when it was first watched, if that is not known
    is_ours: bool  # whether *since* is its real age
    ripe_at: float  # when the first look is owed
    due: float  # when the next look by name is owed
    truth_due: float  # until when list entries alone are believed
    rhythm: Rhythm  # of the looks by name
    spot: Spot | None = None  # where a page has shown it
    status: str | None = None  # as last shown
    swept_at: float = -math.inf  # when the page was asked for on which it was expected
    seen_at: float = -math.inf  # when a list page showed it
    hidden_until: float = -math.inf  # the list did not show it where it was expected
    is_alone: bool = False  # no other open task is expected on its page
    is_asked: bool = False  # a peek is under way
    net: float | None = None  # seconds between looks while a webhook is expected to tell the end

    def rest(self, now: float) -> None:
        """It was open just now: what is left to a webhook is not looked at again for a while."""
        if self.net is not None:
            self.ripe_at = self.due = now + self.net
            self.truth_due = self.due + self.net

    def is_overdue(self, now: float) -> bool:
        """True when the webhook that should have told its end has had its time."""
        return self.net is not None and self.ripe_at <= now

    def is_by_name(self, now: float) -> bool:
        """True for a task that no page of the list is expected to show well."""
        return self.is_alone or now < self.hidden_until

    def forget_list(self) -> None:
        """Nothing that pages told of it, or failed to tell, counts any more."""
        self.is_alone = False
        self.hidden_until = -math.inf
        self.spot = None
