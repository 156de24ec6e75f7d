"""Weights in the order in which the C++ file reads them: sixteen outputs side by side.

    weights [N, K]  ──►  panels [⌈N / 16⌉, K, 16]     float32, or int8 and a scale for each output

In eight bits, a weight is an integer from -127 to 127 times the scale of its output. Only storage
is in eight bits: sums are float32 and are multiplied by the scale at the end.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from batchgen_kernels.cpu.library import PANEL, Weights

LARGEST = 127  # -128 is not used, so that codes are symmetric


def pack(library: ctypes.CDLL, weight: Tensor) -> Tensor:
    """Return the panels [⌈N / 16⌉, K, 16] of float32 weights [N, K]."""
    weight = weight.detach().contiguous()
    outputs, inputs = weight.shape
    panels = torch.empty(-(-outputs // PANEL), inputs, PANEL)
    threads = torch.get_num_threads()
    library.pack(weight.data_ptr(), inputs, outputs, inputs, panels.data_ptr(), threads)
    return panels


def pack_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 panels [⌈N / 16⌉, K, 16] and scales [⌈N / 16⌉, 16] of float32 weights [N, K]."""
    codes, scales = encode(weight.detach())
    padded = nn.functional.pad(codes, (0, 0, 0, -len(codes) % PANEL))
    panels = padded.view(-1, PANEL, codes.shape[1]).transpose(1, 2).contiguous()
    return panels, pad(scales).view(-1, PANEL)


def encode(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes [N, K], int8, and scales [N], float32, nearest to weights [N, K]."""
    scales = weight.abs().amax(dim=1) / LARGEST
    tiny = torch.finfo(torch.float32).tiny  # if all weights of an output are 0, so are its codes
    codes = (weight / scales.clamp(min=tiny)[:, None]).round()
    return codes.clamp(-LARGEST, LARGEST).to(torch.int8), scales


def pad(bias: Tensor) -> Tensor:
    """Return a copy of `bias` [N] with zeros up to whole panels."""
    return nn.functional.pad(bias.detach(), (0, -len(bias) % PANEL)).clone()


def addressed(panels: Tensor, scales: Tensor | None) -> Weights:
    """Return a struct with the addresses of both tensors, which must outlive it."""
    return Weights(panels.data_ptr(), None if scales is None else scales.data_ptr())
