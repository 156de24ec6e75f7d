"""The model: transformers' layers over the paged KV pool compute the tokens of step plans."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from batchgen.engine.config import EngineConfig
from batchgen.engine.network.attention import HANDLER, LayerAttention, forward
from batchgen.engine.network.device import resolve_device, resolve_dtype
from batchgen.engine.network.fusing import fuse
from batchgen.engine.network.loading import (
    context_length,
    load_config,
    load_network,
    pinned_length,
    quiet,
)
from batchgen.engine.network.probe import probe
from batchgen.engine.scheduling.plan import StepPlan
from batchgen.errors import InvalidParameter, UnsupportedModel
from batchgen_kernels.cpu.library import load
from batchgen_kernels.cpu.rounding import round_linears
from batchgen_kernels.interface import AttentionKernels, StepBatch
from batchgen_kernels.layout import PoolLayout

NO_INT8 = (
    "Weights of eight bits are for float32 on a CPU. Set quantize to none, or device to cpu and "
    "dtype to float32."
)
WIDE = (
    "weights are rounded to eight bits but take four bytes each: only the compiled kernels keep "
    "them in one"
)


class CausalModel:
    """One probed model; `bind` gives it the kernels of a pool, then `forward` runs plans."""

    def __init__(
        self, network: nn.Module, *, layout: PoolLayout, modules: list[nn.Module], max_length: int
    ) -> None:
        self.network = network
        self.layout = layout
        self.max_length = max_length  # tokens of one sequence
        self.notes: list[str] = []  # differences from what was asked, for a person
        self._modules = modules  # the attention modules, in the order of the layout
        self._kernels: AttentionKernels  # set by `bind`

    @classmethod
    def load(cls, config: EngineConfig) -> CausalModel:
        """Load and probe the model of `config`; raise UnsupportedModel or InvalidParameter."""
        quiet()
        device = resolve_device(config.device)
        settings = load_config(config.model_path)
        stored = settings.get_text_config().dtype or torch.float32
        compute = resolve_dtype(config.dtype, device, stored)
        plain = compute.dtype == torch.float32 and device.type == "cpu"
        int8 = config.quantize == "int8"
        if int8 and not plain:
            raise InvalidParameter(NO_INT8, param="quantize")
        network = load_network(config.model_path, dtype=compute.dtype, device=device)
        length = context_length(settings)
        pinned = pinned_length(network)
        longest = min(length, pinned or length)
        layers = probe(network, vocabulary=vocabulary_size(network), longest=longest)
        if int8:
            round_linears(network)
        if plain and config.kernels != "reference":
            fuse(network, layers, longest=longest, int8=int8)
        model = cls(
            network,
            layout=PoolLayout(
                layers=tuple(layer.shape for layer in layers), block_size=config.block_size
            ),
            modules=[layer.module for layer in layers],
            max_length=longest,
        )
        if int8 and (config.kernels == "reference" or load() is None):
            model.notes.append(WIDE)
        if compute.note:
            model.notes.append(compute.note)
        if longest < length:
            model.notes.append(
                f"context limited to {longest:,} of {length:,} tokens: beyond them this model's "
                "rotary embedding depends on the other rows of the batch"
            )
        return model

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type that the model computes in."""
        return next(self.network.parameters()).dtype

    def bind(self, kernels: AttentionKernels) -> None:
        """Use `kernels` for attention from now on."""
        self._kernels = kernels
        for layer, module in enumerate(self._modules):
            setattr(module, HANDLER, LayerAttention(kernels, layer))

    def forward(self, plan: StepPlan) -> Tensor:
        """Compute the tokens of `plan`; return float32 logits [N, V] of its logit rows."""
        batch = StepBatch(tables=plan.tables, starts=plan.starts, counts=plan.counts)
        with torch.inference_mode():
            self._kernels.copy(plan.copies)
            self._kernels.plan(batch)
            return forward(
                self.network, plan.token_ids, plan.positions, plan.logit_rows, device=self.device
            )


def vocabulary_size(network: Any) -> int:
    """Return the number of token ids that the model can read; raise UnsupportedModel."""
    try:
        return int(network.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError) as error:
        raise UnsupportedModel(
            f"This {network.config.model_type} model has no table of token embeddings: it does not "
            "read text. Take another model."
        ) from error
