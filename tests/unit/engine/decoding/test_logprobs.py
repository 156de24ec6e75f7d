"""Log-probabilities, their ranks, and OpenAI's JSON of them with the tokens' true bytes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from batchgen.engine.decoding.logprobs import (
    MOST,
    ROWS,
    TokenLogprob,
    TopTokens,
    prompt_logprobs,
    to_json,
    top_tokens,
)
from batchgen.engine.decoding.tokenizer import Tokenizer
from tests.support.tiny_models import EOS, save_tokenizer

TEXT = "the dog — 🎉 é"
NONE = TopTokens(ids=[], logprobs=[])


def save_byte_fallback_tokenizer(path: Path) -> None:
    """Write a tokenizer as sentencepiece models have it: "▁" for a space, bytes as "<0xF0>"."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁thedog", "▁the"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e")]
    vocabulary.update({"th": len(vocabulary), "▁th": len(vocabulary) + 1})
    backend = Backend(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(["<unk>", "</s>"])
    backend.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return Tokenizer(path)


def entry(token: int, logprob: float = -1.0, top: TopTokens = NONE) -> TokenLogprob:
    return TokenLogprob(id=token, logprob=logprob, top=top)


def test_the_likeliest_come_first() -> None:
    logprobs = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    for row, top in zip(logprobs, top_tokens(logprobs, 7), strict=True):
        order = row.argsort(descending=True)[:7]
        assert top.ids == order.tolist()
        assert top.logprobs == row[order].tolist()


def test_equally_likely_tokens_rank_alike_however_many_are_asked_for() -> None:
    logprobs = torch.tensor([[-2.0, -1.0, -3.0, -1.0, -2.0, -1.0] * 3])
    full = top_tokens(logprobs, 18)[0]
    assert full.ids[:9] == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    coarse = torch.randn(1, 500, generator=torch.Generator().manual_seed(1)).round()
    ranked = top_tokens(coarse, MOST)[0]
    for count in range(1, MOST):
        assert top_tokens(logprobs, count)[0] == full.first(count)
        assert top_tokens(coarse, count)[0] == ranked.first(count)


def test_no_more_are_ranked_than_there_are() -> None:
    assert len(top_tokens(torch.zeros(1, 4), 20)[0].ids) == 4
    assert len(top_tokens(torch.zeros(1, 90), 50)[0].ids) == 50
    assert top_tokens(torch.zeros(2, 4), 0) == [NONE, NONE]


@pytest.mark.parametrize("top", [0, 2])
def test_each_token_of_a_prompt_is_judged_by_the_row_before_it(top: int) -> None:
    count = 2 * ROWS + 3
    logits = 3 * torch.randn(count, 50, generator=torch.Generator().manual_seed(2))
    tokens = [(7 * i) % 50 for i in range(count)]
    expected = logits.double().log_softmax(-1)
    judged = prompt_logprobs(logits, tokens, top)
    assert [one.id for one in judged] == tokens
    for row, one in zip(expected, judged, strict=True):
        assert one.logprob == pytest.approx(float(row[one.id]), abs=1e-5)
        assert one.top.ids == row.argsort(descending=True)[:top].tolist()


def test_the_json_is_openais(tokenizer: Tokenizer) -> None:
    token, other = tokenizer.backend(" thez")["input_ids"][:2]
    top = TopTokens(ids=[token, other], logprobs=[-0.25, -1.5])
    shown = json.loads(to_json([entry(token, -0.25, top)], None, tokenizer.token_bytes))
    said = tokenizer.decode([token])
    first = {"token": said, "logprob": -0.25, "bytes": list(said.encode())}
    text = tokenizer.decode([other])
    second = {"token": text, "logprob": -1.5, "bytes": list(text.encode())}
    content = [{**first, "top_logprobs": [first, second]}]
    assert shown == {"content": content, "refusal": None}


def test_a_prompts_first_token_follows_nothing(tokenizer: Tokenizer) -> None:
    shown = json.loads(to_json(None, [entry(40), entry(41)], tokenizer.token_bytes))
    assert shown["content"] is None
    assert shown["prompt"][0] is None
    assert [one["logprob"] for one in shown["prompt"][1:]] == [-1.0, -1.0]
    assert "prompt" not in json.loads(to_json([], None, tokenizer.token_bytes))


def test_a_token_that_cannot_come_has_a_number_that_json_can_hold(tokenizer: Tokenizer) -> None:
    top = TopTokens(ids=[5], logprobs=[-math.inf])
    shown = json.loads(to_json([entry(5, -math.inf, top)], None, tokenizer.token_bytes))
    assert shown["content"][0]["logprob"] == -9999.0
    assert shown["content"][0]["top_logprobs"][0]["logprob"] == -9999.0


def content_of(tokenizer: Tokenizer, ids: list[int]) -> list[dict[str, Any]]:
    entries = [entry(token) for token in ids]
    content: list[dict[str, Any]] = json.loads(to_json(entries, None, tokenizer.token_bytes))[
        "content"
    ]
    return content


@pytest.mark.parametrize("save", [save_tokenizer, save_byte_fallback_tokenizer])
def test_the_bytes_of_an_answers_tokens_are_those_of_its_text(tmp_path: Path, save: Any) -> None:
    save(tmp_path)
    tokenizer = Tokenizer(tmp_path)
    ids = tokenizer.backend(TEXT)["input_ids"]
    content = content_of(tokenizer, ids)
    joined = b"".join(bytes(one["bytes"]) for one in content)
    assert joined.decode().removeprefix(" ") == TEXT
    # Some hold a part of a character: their bytes are exact, their text says so.
    parts = [one for one in content if one["token"] == "\N{REPLACEMENT CHARACTER}"]
    assert len(parts) >= 4
    assert any(one["bytes"][0] >= 0x80 for one in parts)


def test_special_tokens_are_shown_by_name(tokenizer: Tokenizer) -> None:
    eos = tokenizer.eos_token_id
    assert eos is not None
    assert content_of(tokenizer, [eos])[0]["token"] == EOS
    assert content_of(tokenizer, [5000])[0]["bytes"] == []
