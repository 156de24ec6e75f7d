from __future__ import annotations

from batchgen.core.rows import Choice, Generation, RowError, Usage
from batchgen.telemetry.catalogue import Process
from batchgen.telemetry.counters import count_answer
from tests.support.metrics import Changes

ANSWER = Generation(
    key=1,
    choices=[
        Choice(index=0, text="secret", finish_reason="length"),
        Choice(index=1, text="secret", finish_reason="stop"),
    ],
    usage=Usage(prompt_tokens=5, completion_tokens=7, cached_tokens=3),
    latency_ms=2500,
    first_token_ms=400,
)


def test_an_answer_is_one_request_with_its_tokens_and_times() -> None:
    changes = Changes(Process.WORKER)
    count_answer(ANSWER)
    assert changes() == {
        'batchgen_requests_total{outcome="length"}': 1,
        'batchgen_tokens_total{kind="prompt"}': 5,
        'batchgen_tokens_total{kind="completion"}': 7,
        'batchgen_tokens_total{kind="cached"}': 3,
        "batchgen_request_latency_seconds_count": 1,
        "batchgen_request_latency_seconds_sum": 2.5,
        "batchgen_time_to_first_token_seconds_count": 1,
        "batchgen_time_to_first_token_seconds_sum": 0.4,
    }


def test_an_error_is_a_request_without_a_first_token() -> None:
    changes = Changes(Process.WORKER)
    count_answer(Generation(key=1, error=RowError(code="poison", message="secret"), latency_ms=10))
    assert changes() == {
        'batchgen_requests_total{outcome="error"}': 1,
        "batchgen_request_latency_seconds_count": 1,
        "batchgen_request_latency_seconds_sum": 0.01,
    }
