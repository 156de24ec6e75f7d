from __future__ import annotations

import numpy as np
import pytest

from batchgen.core.params import SamplingParams
from batchgen.engine.scheduling.admission import Admission, peak_blocks
from batchgen.engine.scheduling.answer_lengths import LengthBook
from batchgen.engine.scheduling.block_tables import BlockTables
from batchgen.engine.scheduling.blocks import BlockPool
from batchgen.engine.scheduling.sequence import SequenceGroup

SIZE = 4


def make_admission(
    *, blocks: int = 100, width: int = 50, max_num_seqs: int = 8, lengths: LengthBook | None = None
) -> Admission:
    tables = BlockTables(BlockPool(blocks + 1, SIZE), rows=max_num_seqs, width=width)
    return Admission(tables, lengths or LengthBook(), max_num_seqs=max_num_seqs)


def make_group(
    prompt: int, max_tokens: int, *, ignore_eos: bool = True, n: int = 1
) -> SequenceGroup:
    params = SamplingParams(ignore_eos=ignore_eos, n=n)
    return SequenceGroup.of_prompt(1, [1] * prompt, params, max_tokens=max_tokens)


def recomputed(prompt: int, *answers: int, differ_at: int) -> SequenceGroup:
    """Return a preempted group with answers of so many tokens, equal up to a point."""
    group = make_group(prompt, 99, n=len(answers))
    group.sequences = [group.sequences[0].fork(index) for index in range(len(answers))]
    for sequence, length in zip(group.sequences, answers, strict=True):
        sequence.tokens += [1] * differ_at + [2 + sequence.index] * (length - differ_at)
    group.forget_computed()
    return group


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "n", "blocks"),
    [
        (8, 1, 1, 2),  # the only token drawn is never computed
        (4, 2, 1, 2),
        (5, 8, 1, 3),
        (8, 5, 3, 2 + 3 * 1),  # the prompt's blocks are whole: all shared
        (9, 4, 3, 2 + 3 * 1),  # a third one is partial: copied
        (9, 5, 3, 2 + 3 * 2),
    ],
)
def test_the_worst_case_shares_whole_prompt_blocks(
    prompt: int, max_tokens: int, n: int, blocks: int
) -> None:
    group = make_group(prompt, max_tokens, n=n)
    assert peak_blocks(group, SIZE) == blocks
    assert make_admission(blocks=blocks).can_ever_fit(group)
    assert not make_admission(blocks=blocks - 1).can_ever_fit(group)


def test_an_answer_longer_than_a_row_can_never_fit() -> None:
    admission = make_admission(blocks=100, width=3)
    assert admission.can_ever_fit(make_group(4, 9))
    assert not admission.can_ever_fit(make_group(4, 10))


def test_a_prompt_starts_with_all_of_its_blocks_but_those_in_use_by_others() -> None:
    admission = make_admission()
    assert admission.blocks_to_start(make_group(37, 5), cached=0) == 10
    assert admission.blocks_to_start(make_group(37, 5), cached=4) == 6


@pytest.mark.parametrize(
    ("differ_at", "blocks"),
    [
        (3, 1 + 3 * 2),  # 4 + 3 tokens alike: the partial block is copied for all but one
        (4, 2 + 3 * 1),  # 4 + 4 alike: whole blocks
        (0, 1 + 3 * 2),
    ],
)
def test_what_answers_share_is_counted_once_when_they_come_back(
    differ_at: int, blocks: int
) -> None:
    group = recomputed(4, 8, 8, 8, differ_at=differ_at)
    assert make_admission().blocks_to_start(group, cached=0) == blocks
    assert make_admission().blocks_to_start(group, cached=1) == blocks - 1


@pytest.mark.parametrize("prompt", [3, 4, 5, 6, 7])
@pytest.mark.parametrize("differ_at", [0, 1, 2, 3, 4, 5])
def test_a_group_that_fits_alone_can_always_come_back_alone(prompt: int, differ_at: int) -> None:
    group = recomputed(prompt, 9, 9, differ_at=differ_at)
    group.max_tokens = 10
    admission = make_admission(blocks=peak_blocks(group, SIZE))
    needed = admission.blocks_to_start(group, cached=0)
    assert admission.allows(group, needed, running=[])


def test_places_are_kept_for_all_sequences_of_a_group() -> None:
    admission = make_admission(max_num_seqs=4)
    running = [make_group(4, 1, n=3)]
    assert admission.allows(make_group(4, 1), 1, running=running)
    assert not admission.allows(make_group(4, 1, n=2), 1, running=running)


def test_a_few_blocks_stay_free_for_those_that_run() -> None:
    # Ample by any expectation, but now there is little.
    admission = make_admission(blocks=30, max_num_seqs=4, width=7)
    running = [make_group(4, 1), make_group(4, 1)]
    admission.pool.allocate(20)
    assert admission.allows(make_group(4, 1), 7, running=running)
    assert not admission.allows(make_group(4, 1), 10, running=running)
    # Each of its sequences may begin a block in the next step.
    assert admission.allows(make_group(4, 1, n=2), 6, running=running)
    assert not admission.allows(make_group(4, 1, n=2), 9, running=running)


def test_a_group_waits_where_the_expected_peak_has_no_room() -> None:
    lengths = LengthBook()
    admission = make_admission(blocks=20, lengths=lengths)
    running = make_group(4, 200, ignore_eos=False)
    running.max_tokens = 60
    admission.pool.allocate(2)
    newcomer = make_group(4, 60, ignore_eos=False)
    assert not admission.allows(newcomer, 1, running=[running]), "it may be 60 tokens long"
    ended = make_group(4, 60, ignore_eos=False)
    ended.sequences[0].tokens += [1] * 10
    lengths.observe(ended)
    assert admission.allows(newcomer, 1, running=[running]), "it hardly ever is"


def test_whoever_would_be_alone_may_start_whatever_is_expected() -> None:
    admission = make_admission(blocks=10)
    group = make_group(16, 25, ignore_eos=True)
    assert admission.can_ever_fit(group)
    assert admission.allows(group, 4, running=[])
    taken = np.array(admission.pool.allocate(7), dtype=np.int32)
    assert not admission.allows(group, 4, running=[])
    admission.pool.release(taken)
