"""Random lives of pool and scheduler, checked after every step: see `tests.support.scheduling`.

`make soak-engine` lives much longer: BATCHGEN_TEST_ENGINE_STEPS, BATCHGEN_TEST_ENGINE_SEED.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.scheduler import Scheduler
from batchgen.engine.scheduling.sequence import SequenceGroup
from tests.support.scheduling import Life, World

STEPS = int(os.environ.get("BATCHGEN_TEST_ENGINE_STEPS", "100000"))
SEED = int(os.environ.get("BATCHGEN_TEST_ENGINE_SEED", "1"))
PARTS = 10  # tests that the steps are spread over
MOST_ALIVE = 24  # groups


def random_world(rng: Random) -> World:
    """Return a pool of few answers' length: most groups give way, or nearly."""
    block_size = rng.choice([1, 2, 4, 16])
    max_num_seqs = rng.choice([3, 8, 16])
    tokens = rng.choice([40, 80, 160]) * (3 if block_size == 16 else 1)
    blocks = tokens // block_size
    return World(
        blocks=blocks,
        host_blocks=rng.choice([0, rng.randint(1, blocks), blocks]),
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_batch_tokens=rng.choice([max_num_seqs, 16, 64]),
        preemption=rng.choice(["auto", "swap", "swap", "recompute"]),
        caching=rng.random() < 0.5,
        window=rng.choice([None] * 8 + [1, 3, 20]),
        foresight=rng.random() < 0.1,
    )


def random_group(life: Life, *, wide: float) -> SequenceGroup | None:
    """Return a group that fits, `wide` with that probability; None where the prompt is too long."""
    rng = life.rng
    most = min(life.world.max_num_seqs, life.world.max_batch_tokens)
    width = min(most, rng.choice([2, 2, 3, 3, 4, 16])) if rng.random() < wide else 1
    beams = rng.random() < 0.5
    params = SamplingParams(
        n=1 if beams else width,
        num_beams=width if beams else 1,
        prompt_logprobs=0 if rng.random() < 0.15 else None,
        ignore_eos=rng.random() < 0.5,
    )
    # Two tokens and few of them: prompts and answers are alike most of the time.
    prompt = [1] * rng.choice([0, 0, 0, 3, 17])
    prompt += [rng.randrange(2) for _ in range(rng.randint(1, 4))]
    group = life.group(
        prompt,
        params,
        max_tokens=rng.choice([1, 10, 10, 30, 30, 60, 200]),
        job=rng.choice(["", "a", "b"]),
        salt=rng.choice(["", "", "", "", "salt"]),
    )
    return fitted(life, group)


def fitted(life: Life, group: SequenceGroup) -> SequenceGroup | None:
    """Return `group` with answers as long as can ever fit: some take the whole pool."""
    while group.max_tokens and not life.scheduler.can_ever_fit(group):
        group.max_tokens -= 1
    return group if group.max_tokens else None


def live(seed: int) -> Life:
    """Return a life from its first step to its end."""
    rng = Random(seed)  # noqa: S311
    life = Life(random_world(rng), rng)
    wide = rng.choice([0.0, 0.1, 0.5])
    try:
        while life.steps < 300:
            chance = rng.random()
            if chance < 0.25 and len(life.alive) < MOST_ALIVE:
                group = random_group(life, wide=wide)
                if group is not None:
                    life.add(group)
            elif chance < 0.27 and life.alive:
                life.abort(rng.choice(list(life.alive)))
            elif chance < 0.28:  # as where the host is full for a while
                life.scheduler.preemption = rng.choice(["auto", "swap", "recompute"])
            else:
                life.step()
        life.finish()
    except BaseException as error:
        error.add_note(f"in live({seed}), step {life.steps}, {life.world}")
        raise
    return life


@pytest.mark.parametrize("part", range(PARTS))
def test_random_lives_lose_nothing_and_end(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, check = 0, Scheduler.check_integrity

    def counted(scheduler: Scheduler) -> None:
        nonlocal checks
        check(scheduler)
        checks += 1

    monkeypatch.setattr(Scheduler, "check_integrity", counted)
    rng = Random(f"{SEED} {part}")  # noqa: S311
    seen: Counter[str] = Counter()
    while checks < STEPS / PARTS:
        life = live(rng.getrandbits(32))
        scheduler = life.scheduler
        seen["steps"] += life.steps
        seen["ended"] += len(life.ended)
        seen["preempted"] += scheduler.preemptions
        seen["moved"] += scheduler.swapper.moved
        seen["copied"] += scheduler.pool.copies_made
        seen["found"] += scheduler.prefixes.hit_tokens if scheduler.prefixes is not None else 0
    assert seen["steps"] == checks, "a step was not checked"
    assert seen["steps"] * PARTS >= STEPS
    # The lives were as eventful as they should be.
    assert seen["ended"] > checks / 50
    for event in ("preempted", "moved", "copied", "found"):
        assert seen[event] >= checks // 5000, event


def test_the_steps_are_a_hundred_thousand_unless_said_otherwise() -> None:
    assert "BATCHGEN_TEST_ENGINE_STEPS" in os.environ or STEPS == 100_000


class SchedulerMachine(RuleBasedStateMachine):
    """The same with every decision hypothesis's own, so that what fails becomes short."""

    @initialize(
        block_size=st.sampled_from([1, 2, 4]),
        blocks=st.integers(4, 30),
        host_blocks=st.integers(0, 30),
        max_num_seqs=st.integers(1, 6),
        spare_tokens=st.integers(0, 20),
        preemption=st.sampled_from(["auto", "swap", "recompute"]),
        caching=st.booleans(),
        window=st.sampled_from([None, None, 1, 3]),
        foresight=st.booleans(),
    )
    def begin(
        self, blocks: int, host_blocks: int, max_num_seqs: int, spare_tokens: int, **rest: object
    ) -> None:
        world = World(
            blocks=blocks,
            host_blocks=min(blocks, host_blocks),
            max_num_seqs=max_num_seqs,
            max_batch_tokens=max_num_seqs + spare_tokens,
            **rest,  # type: ignore[arg-type]
        )
        self.life = Life(world, Random(0))  # noqa: S311

    @precondition(lambda self: len(self.life.alive) < MOST_ALIVE)
    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        max_tokens=st.integers(1, 40),
        width=st.integers(1, 6),
        beams=st.booleans(),
        judged=st.booleans(),
        job=st.sampled_from(["", "a", "b"]),
        salt=st.sampled_from(["", "salt"]),
    )
    def add(
        self,
        prompt: list[int],
        max_tokens: int,
        width: int,
        beams: bool,
        judged: bool,
        job: str,
        salt: str,
    ) -> None:
        width = min(width, self.life.world.max_num_seqs)
        params = SamplingParams(
            n=1 if beams else width,
            num_beams=width if beams else 1,
            prompt_logprobs=0 if judged else None,
        )
        group = self.life.group(prompt, params, max_tokens=max_tokens, job=job, salt=salt)
        if fitted(self.life, group) is not None:
            self.life.add(group)

    @precondition(lambda self: self.life.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.life.abort(data.draw(st.sampled_from(sorted(self.life.alive))))

    @rule(times=st.integers(1, 8), chances=st.integers(0, 99))
    def step(self, times: int, chances: int) -> None:
        self.life.rng.seed(chances)
        for _ in range(times):
            self.life.step()

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if not hasattr(self, "life"):
            return
        scheduler = self.life.scheduler
        assert len(self.life.alive) == scheduler.num_waiting + len(scheduler.running)

    def teardown(self) -> None:
        if hasattr(self, "life"):
            self.life.finish()


SchedulerMachine.TestCase.settings = settings(
    max_examples=STEPS // 2_000, stateful_step_count=40, deadline=None
)
TestSchedulerMachine = SchedulerMachine.TestCase
