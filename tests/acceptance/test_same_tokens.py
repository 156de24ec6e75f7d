"""The engine says what transformers says, on a real model and prompts of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchgen.engine.config import EngineConfig
from benchmarks.equality import EXAMPLES, compare, compare_beams, load_chats

if TYPE_CHECKING:
    from batchgen.models.record import ModelRecord

ROWS = 12


def test_greedy_equals_transformers_in_one_chunked_batch(smollm2: ModelRecord) -> None:
    config = EngineConfig(
        model_path=smollm2.path,
        model_name=smollm2.name,
        dtype="float32",
        max_batch_tokens=32,
        kv_memory="256M",
    )
    result = compare(config, load_chats(EXAMPLES, ROWS), max_tokens=24)
    assert result.different == []
    assert result.equal + result.ties == ROWS
    # the shortest answers end before the last prompt, in chunks of the budget, has begun
    assert result.most_running > ROWS // 2
    assert result.chunked_prefills


def test_beams_equal_transformers_token_for_token_and_score_for_score(
    smollm2: ModelRecord,
) -> None:
    config = EngineConfig(
        model_path=smollm2.path,
        model_name=smollm2.name,
        dtype="float32",
        max_batch_tokens=32,
        kv_memory="256M",
    )
    result = compare_beams(config, load_chats(EXAMPLES, 4), max_tokens=16, beams=4)
    assert result.different == []
    assert result.equal + result.ties == 4
    assert result.most_running > 4  # several searches in one batch
