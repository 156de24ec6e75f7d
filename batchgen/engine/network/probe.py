"""The probe: when a model loads, it checks that the engine computes the model correctly.

1. A forward through a recorder: every layer must call the attention interface once; heads,
   widths, window, softcap, sinks and scale are taken from the calls, not from the config.
2. A few sequences (`questions.py`), packed, in chunks, paged, through the reference kernels: the
   logits must equal a plain forward of each sequence. This finds state or masks outside of
   attention, and models that change at a far position.

A model that fails is refused with the name of the layer and the reason.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from batchgen.engine.network.attention import (
    HANDLER,
    NAME,
    Ints,
    LayerAttention,
    forward,
    set_implementation,
)
from batchgen.engine.network.questions import Question, ask
from batchgen.errors import UnsupportedModel
from batchgen_kernels.interface import LayerShape, StepBatch
from batchgen_kernels.layout import PoolLayout
from batchgen_kernels.reference import ReferenceKernels

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_SIZE = 8
# Largest difference of two logits, in units of the largest logit.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 2e-2}
SERVED_LAYERS = {"full_attention", "sliding_attention"}
# Options of attention that no kernel supports. A probe may be too short to show their effect.
UNSERVED_OPTIONS = {
    "attention_mask": "it masks its attention itself",
    "position_bias": "it adds to the scores of its attention",
}
# Errors of models that do not accept packed tokens, positions and rows to keep.
FORWARD_ERRORS = (TypeError, ValueError, AttributeError, LookupError, RuntimeError, ImportError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbedLayer:
    """One attention module, in the order of the forward pass."""

    name: str
    module: nn.Module
    shape: LayerShape


@dataclass(slots=True, eq=False)
class Recorder:
    """An attention handler that records its calls and returns zeros."""

    calls: list[tuple[nn.Module, LayerShape]] = field(default_factory=list)
    # {module: reason why it is not supported}
    refused: dict[nn.Module, str] = field(default_factory=dict)

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> Tensor:
        """Record one call; return [T, Hq, Dv]."""
        shape = LayerShape(
            query_heads=query.shape[1],
            kv_heads=key.shape[1],
            key_width=key.shape[2],
            value_width=value.shape[2],
            scale=options.get("scaling") or key.shape[2] ** -0.5,
            window=options.get("sliding_window"),
            softcap=options.get("softcap"),
            sinks=options.get("s_aux"),
        )
        self.calls.append((module, shape))
        for option, reason in UNSERVED_OPTIONS.items():
            if options.get(option) is not None:
                self.refused[module] = reason
        return query.new_zeros(len(query), shape.query_heads, shape.value_width)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """The logits and the attention outputs of a model for the probe's sequences."""

    # For each sequence, [T, V].
    logits: list[Tensor]
    # For each layer's attention module, one tensor [tokens, hidden] per forward.
    outputs: list[list[Tensor]]


def probe(network: nn.Module, *, vocabulary: int, longest: int) -> list[ProbedLayer]:
    """Return the attention layers of `network`, with `NAME` plugged in; raise UnsupportedModel.

    `longest` is the context length of the model in tokens.
    """
    config: Any = network.config
    text = config.get_text_config()
    layers = _record(network, text, longest)
    windows = [layer.shape.window for layer in layers if layer.shape.window is not None]
    questions = ask(text, vocabulary=vocabulary, longest=longest, windows=windows)
    set_implementation(network, "eager")
    with _outputs(layers) as outputs:
        plain = Run(logits=_plain(network, questions), outputs=outputs)
    set_implementation(network, NAME)
    with _outputs(layers) as outputs:
        paged = Run(logits=_paged(network, layers, questions), outputs=outputs)
    _compare(network, layers, plain, paged)
    return layers


def _record(network: nn.Module, config: Any, longest: int) -> list[ProbedLayer]:
    """Return the attention layers, found by one forward through the recorder."""
    kinds = getattr(config, "layer_types", None) or []
    for i, kind in enumerate(kinds):
        if kind not in SERVED_LAYERS:
            reason = f"it is a {kind} layer, with state or masks apart"
            raise _refusal(network, f"layer {i}", reason)
    if not set_implementation(network, NAME):
        named = (n for n, m in network.named_modules() if "Attention" in type(m).__name__)
        reason = "its attention does not go through transformers' attention interface"
        raise _refusal(network, next(named, "layer 0"), reason)
    layers = _check_calls(network, _calls(network), config.num_hidden_layers)
    for layer, kept in zip(layers, _kept(config), strict=False):
        # A probe is shorter than most windows, so it would not show a window that only a mask or
        # the cache applies.
        if kept is not None and kept < longest and layer.shape.window is None:
            raise _refusal(network, layer.name, "its sliding window is not passed to attention")
    return layers


def _kept(config: Any) -> list[int | None]:
    """Return how many tokens transformers' own cache keeps for each layer; None: all."""
    return [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]


def _calls(network: nn.Module) -> list[tuple[nn.Module, LayerShape]]:
    """Return every call of the attention interface in one forward of two tokens."""
    recorder = Recorder()
    for module in network.modules():
        setattr(module, HANDLER, recorder)
    zeros = np.zeros(2, dtype=np.int64)
    _logits(network, zeros, np.arange(2), zeros[:1])
    for module in network.modules():
        delattr(module, HANDLER)
    names = {module: name for name, module in network.named_modules()}
    for module, reason in recorder.refused.items():
        raise _refusal(network, names[module], reason)
    return recorder.calls


def _check_calls(
    network: nn.Module, calls: list[tuple[nn.Module, LayerShape]], expected: int
) -> list[ProbedLayer]:
    """Return the calls as layers; raise UnsupportedModel unless each layer made exactly one."""
    names = {module: name for name, module in network.named_modules()}
    layers = [
        ProbedLayer(name=names[module], module=module, shape=shape) for module, shape in calls
    ]
    called = [layer.name for layer in layers]
    for name in called:
        if called.count(name) > 1:
            raise _refusal(network, name, f"it attends {called.count(name)} times in one forward")
    for i, layer in enumerate(_decoder_layers(network, expected)):
        if not any(module in names and names[module] in called for module in layer.modules()):
            raise _refusal(network, f"layer {i}", "it does not call the attention interface")
    if len(layers) != expected:
        reason = f"{len(layers)} attention calls in one forward, {expected} layers in the config"
        raise _refusal(network, called[-1] if called else "layer 0", reason)
    return layers


def _decoder_layers(network: nn.Module, expected: int) -> list[nn.Module]:
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == expected]
    return list(lists[0]) if lists else []


def _plain(network: nn.Module, questions: list[Question]) -> list[Tensor]:
    """Return the logits of each sequence, computed alone and in one forward."""
    return [
        _logits(network, each.tokens, each.positions, _wanted(len(each.tokens)))
        for each in questions
    ]


def _wanted(length: int) -> Ints:
    """Return the rows to compare: all but one, to find models that ignore `logits_to_keep`."""
    return np.delete(np.arange(length), length // 2)


def _paged(
    network: nn.Module, layers: list[ProbedLayer], questions: list[Question]
) -> list[Tensor]:
    """Return the logits of each sequence, computed together, in three packed chunks."""
    layout = PoolLayout(layers=tuple(layer.shape for layer in layers), block_size=BLOCK_SIZE)
    lengths = [len(each.tokens) for each in questions]
    tables = _tables(lengths)
    parameter = next(network.parameters())
    pool = torch.full((1 + int(tables.max()), layout.elements), torch.nan).to(parameter)
    kernels = ReferenceKernels(pool, layout)
    for i, layer in enumerate(layers):
        setattr(layer.module, HANDLER, LayerAttention(kernels, i))
    cuts = np.array([[0, size // 2, size - 1, size] for size in lengths], dtype=np.int32)
    logits: list[list[Tensor]] = [[] for _ in questions]
    for starts, ends in zip(cuts.T[:-1], cuts.T[1:], strict=True):
        counts = ends - starts
        kernels.plan(StepBatch(tables=tables, starts=starts, counts=counts))
        spans = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
        tokens = [each.tokens[span] for each, span in zip(questions, spans, strict=True)]
        positions = [each.positions[span] for each, span in zip(questions, spans, strict=True)]
        every = np.arange(counts.sum())
        out = _logits(network, np.concatenate(tokens), np.concatenate(positions), every)
        for rows, part in zip(logits, torch.split(out, counts.tolist()), strict=True):
            rows.append(part)
    return [torch.cat(rows)[torch.from_numpy(_wanted(sum(map(len, rows))))] for rows in logits]


def _tables(lengths: list[int]) -> npt.NDArray[np.int32]:
    """Return block tables for sequences of these lengths; no sequence has contiguous blocks."""
    widths = np.array([-(-length // BLOCK_SIZE) for length in lengths])
    tables = np.zeros((len(lengths), widths.max()), dtype=np.int32)
    held = np.arange(widths.max())[:, None] < widths
    tables.T[held] = np.arange(1, 1 + widths.sum())
    return tables


def _logits(network: nn.Module, tokens: Ints, positions: Ints, rows: Ints) -> Tensor:
    """Return the logits of `rows`; raise UnsupportedModel if the model does not return them."""
    try:
        with torch.inference_mode():
            logits = forward(network, tokens, positions, rows, device=_device(network))
    except FORWARD_ERRORS as error:
        reason = f"a forward at position {positions[-1]} fails: {type(error).__name__}: {error}"
        raise _refusal(network, "the model", reason) from error
    if len(logits) != len(rows):
        raise _refusal(network, "the head", "it does not choose the rows that are asked for")
    return logits


@contextmanager
def _outputs(layers: list[ProbedLayer]) -> Iterator[list[list[Tensor]]]:
    """Collect the outputs of each attention module inside the context, chunk by chunk."""
    outputs: list[list[Tensor]] = [[] for _ in layers]

    def hook(of: list[Tensor]) -> Any:
        def collect(_: nn.Module, __: Any, output: Any) -> None:
            of.append((output[0] if isinstance(output, tuple) else output).float().flatten(0, -2))

        return collect

    handles = [
        layer.module.register_forward_hook(hook(output))
        for layer, output in zip(layers, outputs, strict=True)
    ]
    yield outputs
    for handle in handles:
        handle.remove()


def _compare(network: nn.Module, layers: list[ProbedLayer], plain: Run, paged: Run) -> None:
    """If the logits differ, raise UnsupportedModel with the name of the first layer that does."""
    tolerance = TOLERANCE[next(network.parameters()).dtype]
    if all(_close(a, b, tolerance) for a, b in zip(plain.logits, paged.logits, strict=True)):
        return
    for layer, expected, got in zip(layers, plain.outputs, paged.outputs, strict=True):
        # A sum over all tokens does not depend on how they were packed and cut.
        if not _close(torch.cat(expected).sum(0), torch.cat(got).sum(0), 10 * tolerance):
            raise _refusal(network, layer.name, "its output differs from a plain forward")
    raise _refusal(network, "the head", "the logits differ from a plain forward")


def _close(expected: Tensor, got: Tensor, tolerance: float) -> bool:
    difference = (expected - got).abs().max()
    return bool(difference <= tolerance * expected.abs().max())


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _refusal(network: nn.Module, layer: str, reason: str) -> UnsupportedModel:
    config: Any = network.config
    return UnsupportedModel(
        f"The engine cannot compute this {config.model_type} model correctly: {layer}: {reason}."
    )
