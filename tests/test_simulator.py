"""Whole lives of a client, drawn from seeds and by Hypothesis: what is promised holds in all."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import anyio
import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import eggapi_async
from eggapi_async import AsyncEggClient, RateLimiter
from tests.model_service import DECLINED, POST_FAULTS, UNSENT, Service, Wire
from tests.served import ROOT, environment
from tests.simulator import History, SimulationError, digest, main, only_counted, run, stage
from tests.virtual_time import run_virtual

# --- from seeds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(2))
def test_lives_from_seeds(part: int) -> None:
    """Nothing is bought twice or lost, waits end, the money adds up, nothing is left running.

    And the lives are full of everything: every fault, every step, every end.
    """
    lines = [line for seed in range(30 * part, 30 * (part + 1)) for line in run(seed)]

    befallen = {line.rpartition(": ")[2] for line in lines if " POST " in line}
    steps = {line.rpartition(" ")[2] for line in lines if " step " in line}
    ends = Counter(line.rpartition(": ")[2] for line in lines)
    assert befallen >= {"fine", *POST_FAULTS}
    assert steps == {step.__name__ for step in History.STEPS}
    for end in ("done", "cancelled", "SubmissionUncertainError", "TaskTimeoutError"):
        assert ends[end] > 10, end


@pytest.mark.parametrize("seed", range(4))
def test_a_seed_replays_the_very_run(seed: int) -> None:
    """Five times each the same trace, to the microsecond."""
    assert len({digest(run(seed)) for _ in range(5)}) == 1


@pytest.mark.real_time
def test_a_seed_replays_the_very_run_in_another_process() -> None:
    """Whatever the addresses and hashes there are."""
    shown = subprocess.run(
        [sys.executable, "-m", "tests.simulator", "--seed", "2"],
        cwd=ROOT,
        env={**environment(), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.splitlines() == [*run(2), digest(run(2))]


def test_a_broken_promise_tells_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the version, and what happened last, and how to see it again."""

    async def buy_twice(self: History) -> None:
        self.service.tell("something odd")
        self.service.accepted["An egg"] += 2
        self.check()

    monkeypatch.setattr(History, "end", buy_twice)

    with pytest.raises(SimulationError) as caught:
        run(7, steps=1)
    assert main(["1", "--first", "7"]) == 1

    told = capsys.readouterr().out
    for text in (str(caught.value), told):
        assert f"seed 7, version {eggapi_async.__version__}" in text
        assert "bought twice: ['An egg']" in text
        assert "something odd" in text
        assert "python -m tests.simulator --seed 7" in text
    assert "1 histories" in told


# --- by Hypothesis -------------------------------------------------------------------------------


class Lives(RuleBasedStateMachine):
    """The same steps, chosen and shrunk by Hypothesis."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(only_counted())
        self.runner, self.history = self.stack.enter_context(stage(seed, []))

    @rule(times=st.integers(1, 3))
    def submit(self, times: int) -> None:
        for _ in range(times):
            self.runner.run(self.history.submit())

    @rule()
    def wait(self) -> None:
        self.runner.run(self.history.wait())

    @rule()
    def look(self) -> None:
        self.runner.run(self.history.look())

    @rule()
    def cancel(self) -> None:
        self.runner.run(self.history.cancel())

    @rule()
    def deliver(self) -> None:
        self.runner.run(self.history.deliver())

    @rule()
    def batch(self) -> None:
        self.runner.run(self.history.batch())

    @precondition(lambda self: self.history.lives < 3)
    @rule()
    def restart(self) -> None:
        self.runner.run(self.history.restart())

    @rule(seconds=st.sampled_from([0.0, 0.003, 0.02, 0.3, 2.0, 20.0]))
    def sleep(self, seconds: float) -> None:
        self.runner.run(anyio.sleep(seconds))

    @rule(trouble=st.sampled_from([0.0, 0.3, 0.9]))
    def change_weather(self, trouble: float) -> None:
        self.history.service.trouble = trouble

    @rule(fault=st.sampled_from(POST_FAULTS))
    def befall(self, fault: str) -> None:
        self.history.service.forced.append(fault)

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        if hasattr(self, "history"):
            self.history.check()

    def teardown(self) -> None:
        if hasattr(self, "history"):
            with self.stack:
                self.history.service.forced.clear()
                self.runner.run(self.history.end())


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# --- what heals by itself ------------------------------------------------------------------------

HEALING = (*UNSENT, *DECLINED)


@pytest.mark.parametrize("fault", HEALING)
def test_what_was_provably_not_taken_heals_by_itself(fault: str) -> None:
    """Up to three in a row, 200 seeds: each submission succeeds, and is taken once."""

    async def order() -> None:
        for seed in range(200):
            dice = random.Random(seed)
            service = Service(dice)
            service.forced = [fault] * dice.randint(1, 3)
            http = httpx.AsyncClient(transport=Wire(service))
            async with AsyncEggClient(
                "simulated-key",
                base_url="https://egg.test",
                http_client=http,
                limiter=RateLimiter(per_second=None),
            ) as egg:
                task = await egg.generate("An egg")
            assert service.accepted == {"An egg": 1}, f"seed {seed}"
            assert list(service.jobs) == [task.id], f"seed {seed}"

    run_virtual(order)
