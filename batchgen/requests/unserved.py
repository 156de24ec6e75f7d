"""Fields of OpenAI, vLLM and transformers that batchgen does not support.

Each of them always means decoding, never data. A row that sets one would not get what it asks
for, so it is refused with the name of the field, unless the value changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from batchgen.requests.values.checks import Check
from batchgen.requests.values.line_error import LineError


def unserved(*neutral: Any, remedy: str = "remove it") -> Check:
    """Return a check that refuses a field, unless its value is neutral: it changes nothing."""

    def check(name: str, value: Any) -> Any:
        if _is_one_of(value, neutral):
            return UNSET
        raise LineError("unsupported_parameter", f"'{name}' is not served: {remedy}.", name)

    return check


def renamed_to(ours: str, *neutral: Any) -> Check:
    """Return a check that refuses another name of the field `ours`, unless its value is neutral."""

    def check(name: str, value: Any) -> Any:
        if _is_one_of(value, neutral):
            return UNSET
        raise LineError("unknown_parameter", f"'{name}' is called '{ours}' here: rename it.", name)

    return check


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    # 0 is not False here
    return any(value == each and (type(value) is bool) == (type(each) is bool) for each in neutral)


_WHOLE: Final = "write its fields into the line itself"
_LENGTH: Final = "say how long an answer may be with 'max_tokens'"

_OPENAI: Final[Mapping[str, Check]] = {
    "audio": unserved(),
    "best_of": unserved(1),
    "echo": unserved(False),
    "extra_body": unserved(remedy=_WHOLE),
    "function_call": unserved("none"),
    "functions": unserved([]),
    "max_output_tokens": renamed_to("max_tokens"),
    "modalities": unserved(["text"]),
    "reasoning_effort": unserved("none"),
    "stream": unserved(
        False, remedy="it must be false or absent, as answers are delivered as a dataset"
    ),
    "suffix": unserved(""),
    "tool_choice": unserved("none"),
    "tools": unserved([]),
    "verbosity": unserved(),
    "web_search_options": unserved(),
}
_VLLM: Final[Mapping[str, Check]] = {
    "add_generation_prompt": unserved(True),
    "add_special_tokens": unserved(),
    "bad_words": unserved([]),
    "chat_template": unserved(),
    "chat_template_kwargs": unserved({}),
    "continue_final_message": unserved(False),
    "detokenize": unserved(True),
    "guided_choice": unserved(),
    "guided_decoding_backend": unserved(),
    "guided_grammar": unserved(),
    "guided_whitespace_pattern": unserved(),
    "include_reasoning": unserved(),
    "include_stop_str_in_output": unserved(False),
    "logits_processors": unserved([]),
    "prompt_embeds": unserved(),
    "return_tokens_as_token_ids": unserved(False, remedy="ask for ids with 'return_token_ids'"),
    "sampling_params": unserved(remedy=_WHOLE),
    "skip_special_tokens": unserved(True),
    "spaces_between_special_tokens": unserved(True),
    "structural_tag": unserved(),
    "thinking_token_budget": unserved(),
    "truncate_prompt_tokens": unserved(),
    "use_beam_search": renamed_to("num_beams", False),
    "vllm_xargs": unserved({}),
}
_TRANSFORMERS: Final[Mapping[str, Check]] = {
    "bad_words_ids": unserved([]),
    "begin_suppress_tokens": unserved([]),
    "diversity_penalty": unserved(0.0),
    "do_sample": unserved(remedy="a row is sampled unless its 'temperature' is 0"),
    "encoder_no_repeat_ngram_size": unserved(0),
    "encoder_repetition_penalty": unserved(1.0),
    "eos_token_id": renamed_to("stop_token_ids"),
    "epsilon_cutoff": unserved(0.0),
    "eta_cutoff": unserved(0.0),
    "exponential_decay_length_penalty": unserved(),
    "force_words_ids": unserved([]),
    "forced_bos_token_id": unserved(),
    "forced_eos_token_id": unserved(),
    "generation_config": unserved(remedy=_WHOLE),
    "guidance_scale": unserved(1.0),
    "max_length": unserved(remedy=_LENGTH),
    "max_new_tokens": renamed_to("max_tokens"),
    "max_time": unserved(remedy=_LENGTH),
    "min_length": unserved(0, remedy="say how short an answer may be with 'min_tokens'"),
    "min_new_tokens": renamed_to("min_tokens", 0),
    "no_repeat_ngram_size": unserved(0),
    "num_beam_groups": unserved(1),
    "output_logits": unserved(False),
    "output_scores": unserved(False, remedy="ask for them with 'logprobs'"),
    "penalty_alpha": unserved(),
    "remove_invalid_values": unserved(False),
    "renormalize_logits": unserved(False),
    "return_dict_in_generate": unserved(False),
    "sequence_bias": unserved(remedy="raise and lower single tokens with 'logit_bias'"),
    "stop_strings": renamed_to("stop"),
    "suppress_tokens": unserved([]),
    "token_healing": unserved(False),
    "typical_p": unserved(1.0),
    "watermarking_config": unserved(),
}
_OTHERS: Final[Mapping[str, Check]] = {
    "n_predict": renamed_to("max_tokens"),
    "num_predict": renamed_to("max_tokens"),
    "repeat_penalty": renamed_to("repetition_penalty"),
    "stop_sequences": renamed_to("stop"),
}
#: Every field that is known and not supported.
UNSERVED: Final[Mapping[str, Check]] = {**_OPENAI, **_VLLM, **_TRANSFORMERS, **_OTHERS}
