"""A transformers model from a folder: safetensors only, no code, nothing missing, no network."""

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

# What transformers raises for a folder that it cannot load.
LOADING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    RuntimeError,
)
# Nothing is looked up on a hub and no code of a model folder is ever run.
LOCAL = {"local_files_only": True, "trust_remote_code": False}


def quiet() -> None:
    """Stop transformers' progress bars and advice: what matters is raised as an error."""
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_config(path: Path) -> Any:
    """Return the transformers config of the model in `path`; raise UnsupportedModel.

    Raises UnsafeModel, before anything is opened, where somebody has put code into the folder, or
    a file that names one outside, and ModelError where this user may not read it.
    """
    try:
        scan_folder(path)
        for file in path.iterdir():
            if file.is_file():
                file.open("rb").close()  # of a file it may not open safetensors says it is missing
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
    """Return the refusal of a model: `what` says what did not work, `error` why."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, OSError | ValueError | ImportError):
        reason = f"{type(error).__name__}: {reason}"
    remedy = "Compare the folder with where it came from, or take another model."
    if isinstance(error, ImportError):
        remedy = "Install the package it needs into batchgen's environment, or take another model."
    return UnsupportedModel(f"{what}: {reason.rstrip('.')}. {remedy}")


def context_length(config: Any) -> int:
    """Return the tokens a sequence of this model can have; raise UnsupportedModel."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int):
        raise UnsupportedModel(f"This {config.model_type} model does not say how long it can read.")
    return length


def pinned_length(network: nn.Module) -> int | None:
    """Return the length up to which rotary embeddings do not depend on the batch; None if ever.

    Long-rope and dynamic scaling look at the longest position of everything packed together and
    change the frequencies of all. Below the length that they start from they never do.
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
    """Return the ids that end an answer: the generation config's, one or many, and the tokenizer's.

    Without either an answer ends at `max_tokens`.
    """
    configured = network.generation_config.eos_token_id if network.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in (*ids, tokenizer_eos) if i is not None)
