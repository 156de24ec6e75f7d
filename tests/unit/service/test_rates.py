from __future__ import annotations

import pytest

from batchgen.core.states import JobState
from batchgen.jobs.records.job_records import WorkerRecord
from batchgen.service import Meter, Rates
from tests.support.views import a_view, a_worker


def beating(now: float, tokens: int, name: str = "host/1") -> WorkerRecord:
    return a_worker(id=name, heartbeat_at=now, stats={"generated_tokens": tokens})


def test_one_look_gives_averages_since_the_start() -> None:
    rates = Meter().observe(a_view(done=20, now=1010.0, tokens=500))
    assert rates == Rates(
        rows_per_second=2.0, tokens_per_second=50.0, kv_utilisation=0.25, eta_seconds=40.0
    )


def test_later_looks_give_the_last_seconds() -> None:
    meter = Meter()
    meter.observe(a_view(done=20, now=1010.0, workers=(beating(1010.0, 1000),)))
    rates = meter.observe(a_view(done=60, now=1014.0, workers=(beating(1014.0, 3000),)))
    assert (rates.rows_per_second, rates.tokens_per_second) == (10.0, 500.0)
    assert rates.eta_seconds == 4.0


def test_what_is_long_past_is_forgotten() -> None:
    meter = Meter()
    for now, n in [(1000.0, 0), (2000.0, 10), (2100.0, 20), (2330.0, 89)]:
        rates = meter.observe(a_view(done=n, now=now, workers=(beating(now, n * 10),)))
    assert rates.rows_per_second == 0.3  # 69 rows since 2100
    for now, n in [(2340.0, 90), (2350.0, 92), (2370.0, 95)]:
        rates = meter.observe(a_view(done=n, now=now, workers=(beating(now, n * 10),)))
    assert rates.tokens_per_second == 5 / 3  # 50 tokens since 2340


def test_tokens_add_up_over_workers_and_heartbeats_that_repeat() -> None:
    meter = Meter()
    for now, first, second in [(1000.0, 0, 0), (1004.0, 400, 800), (1004.0, 400, 800)]:
        both = (beating(now, first, "a/1"), beating(now, second, "b/1"))
        rates = meter.observe(a_view(done=1, now=now, workers=both))
    assert rates.tokens_per_second == 300.0


def test_a_restarted_worker_gives_no_negative_rate() -> None:
    meter = Meter()
    for now, tokens in [(1000.0, 5000), (1010.0, 6000), (1020.0, 10), (1024.0, 410)]:
        rates = meter.observe(a_view(done=1, now=now, workers=(beating(now, tokens),)))
    assert rates.tokens_per_second == 100.0


def test_kv_utilisation_weighs_pools_by_their_size() -> None:
    small = a_worker(id="a/1", stats={"kv_blocks": 100, "kv_blocks_used": 100})
    large = a_worker(id="b/1", stats={"kv_blocks": 300, "kv_blocks_used": 0})
    silent = a_worker(id="c/1", stats={})
    view = a_view(done=1, now=1001.0, workers=(small, large, silent))
    assert Meter().observe(view).kv_utilisation == 0.25


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FINALIZING, JobState.COMPLETED])
def test_a_job_that_does_not_run_has_no_rates(state: JobState) -> None:
    assert Meter().observe(a_view(done=20, now=1010.0, state=state)) == Rates()


def test_nothing_done_yet_is_no_forecast() -> None:
    assert Meter().observe(a_view(now=1000.0)).eta_seconds is None


def test_a_pause_is_not_part_of_the_rate() -> None:
    meter = Meter()
    meter.observe(a_view(done=20, now=1010.0))
    meter.observe(a_view(done=20, now=1020.0, paused=True))
    meter.observe(a_view(done=20, now=2000.0))
    assert meter.observe(a_view(done=40, now=2004.0)).rows_per_second == 5.0


def test_a_clock_that_is_set_back_begins_anew() -> None:
    meter = Meter()
    for now, done in [(9000.0, 10), (9010.0, 20), (5400.0, 22), (5404.0, 30)]:
        rates = meter.observe(a_view(done=done, now=now, workers=(beating(now, done * 10),)))
    assert (rates.rows_per_second, rates.tokens_per_second) == (2.0, 20.0)


def test_tokens_of_running_rows_tell_speed_and_end_at_the_first_look() -> None:
    rates = Meter().observe(a_view(running=600, now=1012.0, answer_tokens=60.0))
    assert (rates.rows_per_second, rates.tokens_per_second) == (None, 50.0)
    assert rates.eta_seconds == (100 * 60 - 600) / 50


def test_later_looks_follow_the_jobs_own_tokens() -> None:
    meter = Meter()
    for now, running in [(1100.0, 1000), (1110.0, 1000), (1130.0, 1300)]:
        rates = meter.observe(a_view(running=running, now=now, answer_tokens=60.0))
    assert rates.eta_seconds == (100 * 60 - 1300) / 10


def test_rows_tell_the_end_once_half_of_them_are_done() -> None:
    rates = Meter().observe(a_view(done=50, tokens=100, now=1010.0, answer_tokens=4000.0))
    assert rates.eta_seconds == 10.0
