"""A model whose linear layers have weights of eight bits, whichever kernels compute it."""

from __future__ import annotations

from torch import nn

from batchgen_kernels.cpu.linear import can_pack
from batchgen_kernels.cpu.panels import encode


def round_linears(network: nn.Module) -> None:
    """Round the weights of the float32 linear layers of `network` to 255 levels an output.

    Packing them as int8 then loses nothing more. An embedding that is tied to the head stays.
    """
    for linear in filter(can_pack, network.modules()):
        assert isinstance(linear, nn.Linear)
        codes, scales = encode(linear.weight.detach())
        linear.weight = nn.Parameter(codes * scales[:, None], requires_grad=False)
