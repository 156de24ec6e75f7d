"""Rounds the weights of linear layers to eight bits, for all kernels alike."""

from __future__ import annotations

from torch import nn

from batchgen_kernels.cpu.linear import can_pack
from batchgen_kernels.cpu.panels import encode


def round_linears(network: nn.Module) -> None:
    """Round the weights of the float32 linear layers of `network` to 255 levels an output.

    Packing them as int8 then loses no more precision. An embedding tied to the head is unchanged.
    """
    for linear in filter(can_pack, network.modules()):
        assert isinstance(linear, nn.Linear)
        codes, scales = encode(linear.weight.detach())
        linear.weight = nn.Parameter(codes * scales[:, None], requires_grad=False)
