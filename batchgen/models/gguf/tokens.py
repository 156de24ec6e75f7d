"""The tokenizer of a GGUF file, and the tokens that end an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import decoders, normalizers, pre_tokenizers
from transformers import TokenizersBackend

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf.header import GgufHeader

TOKENS = "tokenizer.ggml.tokens"
SPLIT = "tokenizer.ggml.pre"
KIND = "tokenizer.ggml.model"

# Values of SPLIT for byte-level vocabularies for which transformers uses GPT-2's split.
# The merges of these were learned with single digits ("  12" is "  " "1" "2", never " " " 12").
DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "codeshell"})
AS_GPT2 = frozenset({"gpt-2", "mpt", "olmo", "phi-2"})
# In these vocabularies, a word that is a token is always one token; merges are not applied to it.
WORDS_FIRST = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}
    | {"tekken"}
)
# With these and with sentencepiece, a text begins with BOS unless the file says otherwise.
BEGINS = WORDS_FIRST

END_OF_SENTENCE = "<\N{FULLWIDTH VERTICAL LINE}end▁of▁sentence\N{FULLWIDTH VERTICAL LINE}>"
# llama.cpp ends an answer at tokens with these texts, besides the file's own end tokens.
ENDS = frozenset(
    {"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>"}
    | {"<|calls|>", "<end_of_turn>", "<turn|>", "<|endoftext|>", "<|end_of_text|>", "<EOT>"}
    | {"_<EOT>", "[EOT]", "[EOS]", "<eos>", "</s>", "<end_of_utterance>", END_OF_SENTENCE}
)


def end_tokens(header: GgufHeader) -> list[int]:
    """Return the ids that end an answer, the file's own end of text first."""
    tokens: Any = header.metadata.get(TOKENS) or ()
    named = [
        header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")
    ]
    ids = [one for one in named if isinstance(one, int) and 0 <= one < len(tokens)]
    ids += [number for number, text in enumerate(tokens) if text in ENDS]
    return list(dict.fromkeys(ids))


def load_tokenizer(source: Path, header: GgufHeader) -> TokenizersBackend:
    """Load the tokenizer and add settings that transformers drops; raise UnsupportedModel."""
    tokenizer: TokenizersBackend = TokenizersBackend.from_pretrained(
        source.parent, gguf_file=source.name
    )
    if header.metadata.get(KIND) == "gpt2":
        _split_bytes(tokenizer, str(header.metadata.get(SPLIT, "")))
    _prefix(tokenizer, header)
    _frame(tokenizer, header)
    return tokenizer


def _split_bytes(tokenizer: TokenizersBackend, split: str) -> None:
    """Set the text splitting with which the vocabulary's merges were learned."""
    backend = tokenizer.backend_tokenizer
    if split in WORDS_FIRST:
        backend.model.ignore_merges = True
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) or split in AS_GPT2:
        return
    if split not in DIGITS_APART:
        raise UnsupportedModel(
            f"its text splitting {SPLIT} = {split!r} is not known, so tokens would be wrong"
        )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _prefix(tokenizer: TokenizersBackend, header: GgufHeader) -> None:
    """Set whether a text begins with a space; transformers ignores the file's value."""
    sentencepiece = header.metadata.get(KIND) != "gpt2"
    backend = tokenizer.backend_tokenizer
    has = "prepend" in str(backend.normalizer).lower() or isinstance(
        backend.pre_tokenizer, pre_tokenizers.Metaspace
    )
    wanted = header.metadata.get("tokenizer.ggml.add_space_prefix", has)
    if wanted == has:
        return
    if wanted or not sentencepiece:
        raise UnsupportedModel(
            f"its tokenizer.ggml.add_space_prefix = {wanted} cannot be converted"
        )
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme="never", split=False
        )
    else:
        backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )


def _frame(tokenizer: TokenizersBackend, header: GgufHeader) -> None:
    """Set whether BOS and EOS are added to a text, from the file or else llama.cpp's default."""
    begins = header.metadata.get(KIND) == "llama" or header.metadata.get(SPLIT) in BEGINS
    for name, default in (("bos", begins), ("eos", False)):
        key = f"tokenizer.ggml.add_{name}_token"
        wanted = bool(header.metadata.get(key, default))
        if wanted and getattr(tokenizer, f"{name}_token_id") is None:
            raise UnsupportedModel(f"{key} is set, but there is no {name}_token_id")
        setattr(tokenizer, f"add_{name}_token", wanted)
    tokenizer.update_post_processor()
