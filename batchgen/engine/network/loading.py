"""Loads a transformers model from a folder: safetensors only, complete, no code, no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from batchgen.engine.network.claims import check_weights_held, left_out
from batchgen.errors import ModelError, UnsupportedModel
from batchgen.models.trust.references import check_pinned, check_references
from batchgen.models.trust.safety import scan_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

# Errors that transformers raises for a folder that it cannot load.
LOADING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    RuntimeError,
)
# No hub is asked, and no code of a model folder is run.
LOCAL = {"local_files_only": True, "trust_remote_code": False}


def quiet() -> None:
    """Turn off transformers' progress bars and advice; real problems are raised as errors."""
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_config(path: Path) -> Any:
    """Return the transformers config of the model in `path`; raise UnsupportedModel.

    Before a library opens a file, raise UnsafeModel if the folder holds code, or a file that names
    one outside of it, and ModelError if this user may not read a file.
    """
    try:
        scan_folder(path)
        for file in path.iterdir():
            if file.is_file():
                file.open("rb").close()  # safetensors would report an unreadable file as missing
    except PermissionError as error:
        raise ModelError(
            f"The model in {path} cannot be loaded: permission denied: {error.filename}. Its files "
            "have to be readable for the user of the worker."
        ) from error
    check_pinned(path)
    check_references(path)
    try:
        return transformers.AutoConfig.from_pretrained(path, **LOCAL)
    except LOADING_ERRORS as error:
        raise not_loaded(f"{path} holds no model that transformers knows", error) from error


def load_network(path: Path, *, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """Return the model of `path`, ready to infer, with eager attention; raise UnsupportedModel."""
    loader: Any = transformers.AutoModelForCausalLM
    try:
        check_weights_held(load_config(path), path)
        network, report = loader.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
            **LOCAL,
        )
    except LOADING_ERRORS as error:
        raise not_loaded(f"The model in {path} cannot be loaded", error) from error
    # transformers fills a missing weight with random numbers and logs a line.
    bad = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind])
    if bad:
        raise UnsupportedModel(f"The model in {path} lacks weights: {', '.join(bad[:5])}.")
    if unused := left_out(network, report["unexpected_keys"]):
        raise UnsupportedModel(
            f"config.json describes a model that does not use {', '.join(unused[:5])} of {path}. "
            "Fetch the files that belong together."
        )
    network.requires_grad_(False)
    result: nn.Module = network.eval().to(device)
    return result


def not_loaded(what: str, error: Exception) -> UnsupportedModel:
    """Return the error that refuses a model: `what` did not work, because of `error`."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, OSError | ValueError | ImportError):
        reason = f"{type(error).__name__}: {reason}"
    remedy = "Compare the folder with where it came from, or take another model."
    if isinstance(error, ImportError):
        remedy = "Install the package it needs into batchgen's environment, or take another model."
    return UnsupportedModel(f"{what}: {reason.rstrip('.')}. {remedy}")


def context_length(config: Any) -> int:
    """Return the most tokens of one sequence; raise UnsupportedModel if the config has none."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int):
        raise UnsupportedModel(f"This {config.model_type} model does not say how long it can read.")
    return length


def pinned_length(network: nn.Module) -> int | None:
    """Return the tokens up to which rotary embeddings are independent of the batch; None: all.

    Long-rope and dynamic scaling change the frequencies of the whole batch by its longest position,
    but only if that is above their original length.
    """
    lengths = []
    for module in network.modules():
        kinds = getattr(module, "rope_type", None)
        for layer, kind in (kinds if isinstance(kinds, dict) else {None: kinds}).items():
            if kind is not None and ("dynamic" in kind or kind == "longrope"):
                lengths.append(_first_length(module, layer))
    return min(lengths, default=None)


def _first_length(module: Any, layer: str | None) -> int:
    parameters = module.config.rope_parameters
    parameters = parameters[layer] if layer is not None else parameters
    original = parameters.get("original_max_position_embeddings")
    return int(original or module.original_max_seq_len)


def end_tokens(network: Any, tokenizer_eos: int | None) -> frozenset[int]:
    """Return the token ids that end an answer, from the generation config and the tokenizer.

    If there are none, an answer ends at `max_tokens`.
    """
    configured = network.generation_config.eos_token_id if network.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in (*ids, tokenizer_eos) if i is not None)
