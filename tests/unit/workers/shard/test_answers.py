from __future__ import annotations

import msgspec
import pytest

from batchgen.core.params import SamplingParams
from batchgen.core.rows import BadRow, Choice, Generation, InputRow, ResultRow, RowError, Usage
from batchgen_workers.shard.answers import (
    answered,
    as_request,
    refused,
    request_id,
    row_seed,
    seeded,
)
from tests.support.jobs import lease_without_store

JOB = "0123456789abcdef" * 2
ROW = InputRow(
    row=7,
    custom_id="q7",
    params=SamplingParams(max_tokens=3),
    prompt="Count to seven",
    extra={"topic": "numbers", "big": 2**63},
)
LEASE = lease_without_store(job_public_id=JOB, tenant_id="acme")
ERROR = RowError(code="batch_cancelled", message="stopped")


def test_a_seed_never_changes() -> None:
    # A dataset computed years ago must be reproducible: this number is a promise.
    assert row_seed(JOB, 7) == 878482953203811989


def test_seeds_fit_a_signed_integer_and_differ() -> None:
    seeds = {row_seed(JOB, row) for row in range(10_000)} | {row_seed("f" * 32, 0)}
    assert len(seeds) == 10_001
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_row_without_a_seed_gets_one_and_keeps_the_rest() -> None:
    row = seeded(JOB, ROW)
    assert row.params == msgspec.structs.replace(ROW.params, seed=row_seed(JOB, 7))
    assert msgspec.structs.replace(row, params=ROW.params) == ROW


@pytest.mark.parametrize("seed", [0, -5, 2**63 - 1])
def test_a_given_seed_stays(seed: int) -> None:
    row = msgspec.structs.replace(ROW, params=SamplingParams(seed=seed))
    assert seeded(JOB, row) is row


def test_the_request_carries_what_the_engine_needs_and_no_more() -> None:
    request = as_request(ROW, key=42, lease=LEASE)
    assert (request.key, request.prompt, request.messages) == (42, ROW.prompt, None)
    assert request.params is ROW.params
    assert (request.job, request.cache_salt) == (JOB, "acme")
    ids = msgspec.structs.replace(ROW, prompt=None, prompt_token_ids=[1, 2])
    assert as_request(ids, key=43, lease=LEASE).prompt_token_ids == [1, 2]


def test_an_answer_joins_its_row() -> None:
    generation = Generation(
        key=42,
        choices=[Choice(index=0, text="one two", finish_reason="stop")],
        usage=Usage(prompt_tokens=3, completion_tokens=2),
        latency_ms=11,
    )
    row = answered(seeded(JOB, ROW), generation, job=JOB, model="tiny", attempt=2)
    assert (row.row, row.custom_id, row.model, row.attempt) == (7, "q7", "tiny", 2)
    assert (row.choices, row.usage, row.latency_ms) == (generation.choices, generation.usage, 11)
    assert row.seed == row_seed(JOB, 7)
    assert row.request_id == request_id(JOB, 7) == f"req_{JOB}_7"
    assert msgspec.json.decode(row.extra or "") == ROW.extra
    assert row.error is None


def test_a_failed_generation_is_an_error_row_without_choices() -> None:
    error = RowError(code="context_length_exceeded", message="too long")
    half = [Choice(index=0, text="half", finish_reason="length")]
    row = answered(ROW, Generation(key=1, choices=half, error=error), job=JOB, model="m", attempt=1)
    assert row.error == error
    assert row.choices == []


def test_a_row_that_never_ran_says_why() -> None:
    row = refused(ROW, ERROR, job=JOB, model="tiny", attempt=0)
    assert (row.error, row.custom_id, row.seed) == (ERROR, "q7", None)
    assert msgspec.json.decode(row.extra or "") == ROW.extra


def test_a_bad_line_keeps_its_own_error() -> None:
    own = RowError(code="invalid_json", message="no")
    row = refused(
        BadRow(row=1, custom_id="row-1", error=own), ERROR, job=JOB, model="tiny", attempt=1
    )
    assert row.error == own
    assert row.extra is None


# Of a row that was not computed, the columns that stay empty.
OF_COMPUTED_ROWS = {"choices", "usage", "seed", "latency_ms"}


def test_every_column_is_filled() -> None:
    """An answer or an error gives each field of a result a value, so none is forgotten."""
    row = seeded(JOB, ROW)
    generation = Generation(
        key=1,
        choices=[Choice(index=0, text="one", finish_reason="stop")],
        usage=Usage(prompt_tokens=3, completion_tokens=1),
        latency_ms=11,
    )
    failed = Generation(key=1, choices=[], error=ERROR)
    computed = answered(row, generation, job=JOB, model="tiny", attempt=1)
    not_computed = answered(row, failed, job=JOB, model="tiny", attempt=1)
    assert filled(computed) | filled(not_computed) == set(ResultRow.__struct_fields__)
    never_sent = refused(row, ERROR, job=JOB, model="tiny", attempt=1)
    assert filled(never_sent) == set(ResultRow.__struct_fields__) - OF_COMPUTED_ROWS


def filled(row: ResultRow) -> set[str]:
    """Return the fields that have a value."""
    names = ResultRow.__struct_fields__
    return {name for name in names if getattr(row, name) not in (None, [], 0)}
