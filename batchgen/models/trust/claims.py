"""Compares the size that a configuration claims with the size of the weights in the files.

transformers would allocate missing weights at their full size before it reports them.
"""

from __future__ import annotations

from typing import Any

from batchgen.errors import UnsafeModel

# A configuration with more than this is a mistake or an attack on memory.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
WIDTHS = ("hidden_size", "n_embd", "d_model")
EXPERT_WIDTHS = ("moe_intermediate_size",)
INNER_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "d_ff")
LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
CONFIG_LIMITS = {
    **dict.fromkeys(LAYERS, 1_024),
    **dict.fromkeys((*HEADS, *KV_HEADS), 4_096),
    **dict.fromkeys(EXPERTS, 1 << 14),
    **dict.fromkeys(WIDTHS, 1 << 18),
    **dict.fromkeys((*INNER_WIDTHS, *EXPERT_WIDTHS), 1 << 21),
    **dict.fromkeys(LENGTHS, 1 << 28),
    "head_dim": 1 << 16,
    "vocab_size": 1 << 23,
}
# Each expert may be a module; real models have up to 25,000 in all layers.
MAX_EXPERTS = 1 << 17

# The least number of weights may be at most SLACK times the bytes of the files. Fewer weights than
# HARMLESS are always accepted.
HARMLESS = 1 << 26
SLACK = 4


def check_claim(config: dict[str, Any], held: int) -> None:
    """Raise UnsafeModel if a configuration needs far more weights than `held` bytes can hold.

    The values of `config` must be within CONFIG_LIMITS.
    """

    def value(keys: tuple[str, ...]) -> int:
        return max(config.get(key) or 0 for key in keys)

    width, layers, experts = value(WIDTHS), value(LAYERS), value(EXPERTS)
    if layers * experts > MAX_EXPERTS:
        raise UnsafeModel(
            f"config.json describes {layers * experts:,} experts; at most {MAX_EXPERTS:,} are read."
        )
    # A lower bound of the rows of `width` weights in one layer: one square matrix or the heads'
    # projection, and the feed-forward layer, once or once per expert.
    attention = max(width, value(HEADS) * (config.get("head_dim") or 0))
    feed = max(experts, 1) * (value(EXPERT_WIDTHS) or value(INNER_WIDTHS))
    claimed = width * (value(("vocab_size",)) + layers * (attention + feed))
    if claimed > max(HARMLESS, SLACK * held):
        raise UnsafeModel(
            f"config.json describes a model of at least {claimed:,} weights, and the safetensors "
            f"files have {held:,} bytes. Fetch the files that belong together."
        )
