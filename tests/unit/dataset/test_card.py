from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import DatasetCard

from batchgen.core.finish_reasons import FinishReasons
from batchgen.core.kv_totals import KVTotals
from batchgen.dataset.card import render_card
from batchgen.dataset.manifest import Totals
from tests.support.result_rows import JOB, META


def front_matter(text: str) -> dict[str, Any]:
    """Return the card's YAML as the Hugging Face hub reads it."""
    return vars(DatasetCard(text).data)


DEFAULT = {"default": [{"split": "train", "path": "data/train-*"}]}
ERRORS = {"errors": [{"split": "errors", "path": "errors/errors-*"}]}


def configs(totals: Totals) -> dict[str, list[dict[str, str]]]:
    found = front_matter(render_card(META, totals))["configs"]
    return {config["config_name"]: config["data_files"] for config in found}


def test_both_configs_are_explicit() -> None:
    assert configs(Totals(rows=3, ok=2, errors=1)) == {**DEFAULT, **ERRORS}


def test_a_config_without_rows_is_not_named() -> None:
    assert configs(Totals(rows=2, ok=2)) == DEFAULT
    assert configs(Totals(rows=2, errors=2)) == ERRORS
    assert configs(Totals()) == DEFAULT


def test_tags_and_size_category() -> None:
    front = front_matter(render_card(META, Totals(rows=3, ok=3)))
    assert front["tags"] == ["synthetic", "batchgen"]
    assert front["size_categories"] == ["n<1K"]


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (1_000_000, "1M<n<10M"),
        (999_999_999, "100M<n<1B"),
        (10**9, "n>1B"),
    ],
)
def test_size_categories_are_the_hubs(rows: int, category: str) -> None:
    front = front_matter(render_card(META, Totals(rows=rows, ok=rows)))
    assert front["size_categories"] == [category]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ('a "quoted" \\ name', 'a "quoted" \\ name'),
        ("line one\nconfigs: []\n---", "line one configs: [] ---"),
        ("übung 🙂", "übung 🙂"),
        ("bell \x07 del \x7f bom \ufeff", "bell \x07 del \x7f bom \ufeff"),
        ("{a: b} # no comment", "{a: b} # no comment"),
    ],
)
def test_a_name_is_data_not_yaml(name: str, title: str) -> None:
    text = render_card(replace(META, name=name), Totals(rows=1, ok=1))
    assert front_matter(text)["pretty_name"] == title
    assert f"# {title}\n" in text


def test_a_job_without_a_name_goes_by_its_id() -> None:
    text = render_card(replace(META, name=None), Totals(rows=1, ok=1))
    assert front_matter(text)["pretty_name"] == f"batchgen job {JOB}"


def test_it_says_what_is_inside_and_where_it_came_from() -> None:
    meta = replace(META, prompts_origin="written by hand", model_license="apache-2.0")
    text = render_card(meta, Totals(rows=3, ok=2, errors=1, prompt_tokens=9, completion_tokens=4))
    for fact in (
        "2 of 3 rows, 1 failed",
        "9 in, 4 out",
        "`tiny`",
        "Model licence: apache-2.0",
        "Prompts: written by hand",
        "2026-09-21T14:13:20.500000Z",
        '"temperature": 0.0',
    ):
        assert fact in text


def test_it_says_how_many_answers_were_cut() -> None:
    cut = FinishReasons(stop=1, length=59)
    text = render_card(META, Totals(rows=60, ok=60, finish_reasons=cut))
    assert "- Answers: 60 of 60 rows, 0 failed, 59 cut at max_tokens\n" in text


def test_it_says_what_the_job_did_to_the_pool() -> None:
    kv = KVTotals(rows=2, preemptions=3, copies=7, utilisation=0.963, sharing_saving=0.125)
    text = render_card(META, Totals(rows=2, ok=2, prompt_tokens=9, cached_tokens=4, kv=kv))
    assert "9 in (4 from the prefix cache), 0 out" in text
    assert (
        "- KV pool: 96.3% of its slots filled, 12.5% of its blocks saved by sharing, "
        "3 preemptions, 7 blocks copied"
    ) in text


def test_unknown_facts_are_left_out() -> None:
    text = render_card(META, Totals(rows=1, ok=1))
    assert "licence" not in text
    assert "KV pool" not in text
    assert "Computed" not in text


def test_a_parameter_cannot_close_its_block() -> None:
    meta = replace(META, params={"stop": ["```\n# heading"]})
    lines = render_card(meta, Totals(rows=1, ok=1)).split("\n")
    stop = [line for line in lines if "# heading" in line]
    assert len(stop) == 1
    assert stop[0].startswith("    ")


def test_each_reader_has_its_snippet() -> None:
    text = render_card(META, Totals(rows=2, ok=1, errors=1))
    for call in ('split="train")', '"errors", split="errors")', "polars.scan_parquet(", "SELECT "):
        assert call in text
    assert 'split="train"' not in render_card(META, Totals(rows=2, errors=2))
