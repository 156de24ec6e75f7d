from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batchgen.inputs.ingest import validate
from examples.make_prompts import FOLDER, KINDS, MODEL, batch_lines, prompts, text_of

PROMPTS, BATCH = FOLDER / "prompts.jsonl", FOLDER / "openai_batch.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_script_writes_the_files_that_are_there() -> None:
    assert PROMPTS.read_text(encoding="utf-8") == text_of(prompts())
    assert BATCH.read_text(encoding="utf-8") == text_of(batch_lines())


@pytest.mark.parametrize("path", [PROMPTS, BATCH], ids=lambda path: path.name)
def test_every_line_can_be_asked(path: Path) -> None:
    with path.open("rb") as source:
        report = validate(source, defaults={}, model=MODEL)
    assert report.problems == []
    assert report.n_rows == len(lines(path))


def test_prompts_are_many_and_no_two_the_same() -> None:
    asked = [json.dumps(line.get("messages", line.get("prompt"))) for line in lines(PROMPTS)]
    assert 256 <= len(asked) <= 320
    assert len(set(asked)) == len(asked)
    assert max(map(len, asked)) < 600


def test_prompts_are_of_every_form() -> None:
    all_lines = lines(PROMPTS)
    kinds = Counter(line["kind"] for line in all_lines[:36])
    assert set(kinds.values()) == {4}  # the first lines alone are a fair sample
    assert set(kinds) == {kind.__name__ for kind in KINDS}
    assert any("prompt" in line for line in all_lines)
    assert 100 < sum("id" in line for line in all_lines) < len(all_lines)
    for field in ("temperature", "top_p", "top_k", "seed", "stop", "answer", "label"):
        assert any(field in line for line in all_lines)
    assert all(16 <= line["max_tokens"] <= 64 for line in all_lines)


def test_the_openai_file_is_for_one_endpoint() -> None:
    batch = lines(BATCH)
    assert len(batch) == 24
    assert {line["url"] for line in batch} == {"/v1/chat/completions"}
    assert {line["body"]["model"] for line in batch} == {MODEL}
