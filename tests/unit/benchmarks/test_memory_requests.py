"""Requests drawn by the lengths of the paper's datasets."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.memory_requests import CONTEXT, DATASETS, Dataset, draw


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_lengths_have_the_mean_of_the_dataset_and_as_much_spread(dataset: Dataset) -> None:
    requests = draw(dataset, 4000, seed=0)
    for wanted, lengths in (
        (dataset.prompt, [request.prompt for request in requests]),
        (dataset.answer, [request.answer for request in requests]),
    ):
        assert statistics.fmean(lengths) == pytest.approx(wanted, rel=0.02)
        assert statistics.stdev(lengths) == pytest.approx(wanted, rel=0.12)


def test_every_request_fits_the_context() -> None:
    requests = draw(DATASETS["sharegpt"], 4000, seed=0, sigma=1.5)
    assert max(request.prompt + request.answer for request in requests) == CONTEXT
    assert min(min(request.prompt, request.answer) for request in requests) >= 1


def test_the_seed_decides() -> None:
    first, again, other = (draw(DATASETS["alpaca"], 50, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert sorted(r.prompt for r in first) == sorted(r.prompt for r in other)
