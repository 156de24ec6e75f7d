"""Tiny random models, saved as real transformers folders: safetensors, tokenizer, chat template.

Weights are drawn wide enough that the logits are far from flat: a wrong position, mask or head
changes the greedy answer at once. Vocabulary: 256 bytes, three special tokens, some merges.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = 360
EOS = "<|im_end|>"
SPECIALS = ["<|endoftext|>", "<|im_start|>", EOS]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "the quick brown fox jumps over the lazy dog and then the dog jumps over the fox again",
    "what is the answer to this question? the answer is that there are more questions than that",
    "user assistant system one two three four five six seven eight nine ten and another one",
]

SHAPE: dict[str, Any] = {
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT2_SHAPE: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
OPT_SHAPE: dict[str, Any] = {"ffn_dim": 64, "word_embed_proj_dim": 32}
MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
#: What a family needs besides SHAPE; unknown names are kept by transformers and do no harm.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 20, "head_dim": 8},
    "phi3": {"pad_token_id": 0},
    "gemma2": {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 20,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 20},
    "gpt_oss": {
        "head_dim": 8,
        "sliding_window": 20,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "opt": OPT_SHAPE,
    "gpt2": GPT2_SHAPE,
    "gpt_neox": {},
    "granite": {},
    "cohere": {},
    "olmo2": {},
    "stablelm": {},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 32},
    "deepseek_v3": {
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    },
    "persimmon": {},
    "starcoder2": {},
    "biogpt": {},
    # It scales its queries by their position.
    "ministral3": {
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "llama_4_scaling_beta": 0.5,
        },
    },
    "afmoe": {
        **MOE,
        "head_dim": 8,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_dense_layers": 1,
        "num_shared_experts": 1,
    },
    # These bypass the attention interface, or keep state that it does not see.
    "falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "bloom": {"n_head": 4, "n_layer": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    "gptj": {**GPT2_SHAPE, "rotary_dim": 4},
    "codegen": {**GPT2_SHAPE, "rotary_dim": 4},
    "llama4_text": {
        "head_dim": 8,
        "intermediate_size_mlp": 64,
        "num_local_experts": 2,
        "attention_chunk_size": 16,
        "interleave_moe_layer_step": 2,
        "no_rope_layer_interval": 2,
    },
    "qwen3_next": {
        **MOE,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 32,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
}


def tiny_llama(path: Path, **overrides: Any) -> Path:
    """Save a two-layer llama with grouped query heads in `path` and return `path`."""
    return tiny_model(path, "llama", **overrides)


def tiny_model(path: Path, family: str, *, seed: int = 0, **overrides: Any) -> Path:
    """Save a random model of `family` (a key of FAMILIES) in `path` and return `path`.

    `overrides` replace values of the model's config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(path)
    ids = {"bos_token_id": tokenizer["<|im_start|>"], "eos_token_id": tokenizer[EOS]}
    values = {**SHAPE, "pad_token_id": tokenizer["<|endoftext|>"], **ids, **FAMILIES[family]}
    config = AutoConfig.for_model(family, **{**values, **overrides})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    model.to(torch.float32)
    randomise(model, seed)
    model.save_pretrained(path)
    return path


def randomise(model: Any, seed: int) -> None:
    """Draw every weight of `model` anew from `seed`: matrices by fan-in, vectors near their own."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(1.5 * noise / parameter.shape[-1] ** 0.5)


def save_tokenizer(path: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> dict[str, int]:
    """Write a byte-level BPE tokenizer into `path`; return its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": SPECIALS[0],
        "model_max_length": SHAPE["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
