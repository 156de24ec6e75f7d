"""The supported model families of GGUF files: tables of their keys and tensors.

Everything that is in no table is refused, so that nothing that changes answers is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# llama.cpp's key below the family's name: the name in transformers' configuration.
SIZES = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
RMS = {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
HEAD = {"attention.key_length": "head_dim"}
WINDOW = {"attention.sliding_window": "sliding_window"}
SOFTCAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
EXPERTS = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}

# llama.cpp's name of a tensor without `.weight` or `.bias`: the parameter in transformers.
ENDS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
DOWN = {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
GATED = {"ffn_gate": "mlp.gate_proj", **DOWN}
ROUTED = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_up_proj",  # gate and up, one below the other
    "ffn_up_exps": "mlp.experts.gate_up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
SHARED = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GPT2_ENDS = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
GPT2_BLOCK = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One of llama.cpp's architectures, with transformers' names of its parts."""

    #: The `model_type` of transformers.
    model_type: str
    #: {key: name in the configuration}
    keys: Mapping[str, str]
    #: {tensor of a block: parameter of a layer}
    block: Mapping[str, str]
    #: {tensor outside of the blocks: parameter}
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    #: The name of the list of layers.
    layers: str = "model.layers"
    #: Configuration values that are constants in llama.cpp's code.
    fixed: Mapping[str, object] = field(default_factory=dict)
    #: {configuration flag: tensor of block 0 whose presence sets it}
    flags: Mapping[str, str] = field(default_factory=dict)
    #: True if rows of query and key are stored in rotary pairs: (half, 2), not (2, half).
    paired: bool = False
    #: True if norms are stored with 1 added, which transformers adds itself.
    centred: bool = False
    #: Tensors of a block that are stored transposed.
    transposed: frozenset[str] = frozenset()
    #: True if rotary embeddings may cover only a part of each head.
    partial: bool = False
    #: True if the family has rotary embeddings.
    rotary: bool = True


LLAMA = Family(
    model_type="llama",
    keys=SIZES | RMS | HEAD,
    block=ATTENTION | GATED,
    flags={"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"},
    paired=True,
)
QWEN2 = Family(model_type="qwen2", keys=SIZES | RMS, block=ATTENTION | GATED)
QWEN3 = Family(
    model_type="qwen3",
    keys=SIZES | RMS | HEAD,
    block=ATTENTION | GATED | HEAD_NORMS,
    flags={"attention_bias": "attn_q.bias"},
)
GEMMA = Family(model_type="gemma", keys=SIZES | RMS | HEAD, block=ATTENTION | GATED, centred=True)

FAMILIES = {
    "llama": LLAMA,
    "granite": Family(
        model_type="granite",
        keys=SIZES
        | RMS
        | {
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
        block=ATTENTION | GATED,
        flags={"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"},
        paired=True,
    ),
    "qwen2": QWEN2,
    "qwen2moe": Family(
        model_type="qwen2_moe",
        keys=SIZES
        | RMS
        | EXPERTS
        | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
        block=ATTENTION | ROUTED | SHARED,
        fixed={"norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "qwen3": QWEN3,
    "qwen3moe": Family(
        model_type="qwen3_moe",
        keys=SIZES | RMS | HEAD | EXPERTS,
        block=ATTENTION | ROUTED | HEAD_NORMS,
        fixed={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        flags={"attention_bias": "attn_q.bias"},
    ),
    "phi3": Family(
        model_type="phi3",
        keys=SIZES | RMS | WINDOW,
        block={
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        partial=True,
    ),
    "gemma": GEMMA,
    "gemma2": Family(
        model_type="gemma2",
        keys=SIZES | RMS | HEAD | WINDOW | SOFTCAPS,
        block=ATTENTION | GATED | SANDWICH,
        centred=True,
    ),
    "gemma3": Family(
        model_type="gemma3_text",
        keys=SIZES | RMS | HEAD | WINDOW | SOFTCAPS,
        block=ATTENTION | GATED | SANDWICH | HEAD_NORMS,
        centred=True,
    ),
    "starcoder2": Family(
        model_type="starcoder2",
        keys=SIZES | {"attention.layer_norm_epsilon": "norm_epsilon"},
        block=ATTENTION | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        flags={"use_bias": "attn_q.bias"},
    ),
    "stablelm": Family(
        model_type="stablelm",
        keys=SIZES | {"attention.layer_norm_epsilon": "layer_norm_eps"},
        block=ATTENTION | GATED,
        flags={"use_qkv_bias": "attn_q.bias"},
        partial=True,
    ),
    "nemotron": Family(
        model_type="nemotron",
        keys=SIZES | {"attention.layer_norm_epsilon": "norm_eps"},
        block=ATTENTION | DOWN,
        flags={"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"},
        centred=True,
        partial=True,
    ),
    "gpt2": Family(
        model_type="gpt2",
        keys={
            "context_length": "n_positions",
            "block_count": "n_layer",
            "embedding_length": "n_embd",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
        ends=GPT2_ENDS,
        block=GPT2_BLOCK,
        layers="transformer.h",
        transposed=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"}),
        rotary=False,
    ),
}
