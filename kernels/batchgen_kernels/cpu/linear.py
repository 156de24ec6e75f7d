"""Linear layers whose weights are packed once for the C++ file: float32 on the CPU.

    weights [N, K]  ──►  panels [⌈N / 16⌉, K, 16]     sixteen outputs side by side

A library packs the weights again on every call, which costs most where there are few rows.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from batchgen_kernels.cpu.library import PANEL, load


class PackedLinear(nn.Module):
    """Computes what the nn.Linear it was made from does, without gradients.

    An output has the same bits whatever the other rows are and however many threads compute.
    """

    panels: Tensor
    padded_bias: Tensor | None

    def __init__(self, library: ctypes.CDLL, linear: nn.Linear) -> None:
        """Pack the float32 weights of `linear`, which may be dropped afterwards."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        count = -(-self.out_features // PANEL)
        weight = linear.weight.detach().contiguous()
        panels = torch.empty(count, self.in_features, PANEL)
        library.pack(
            weight.data_ptr(),
            self.in_features,
            self.out_features,
            self.in_features,
            panels.data_ptr(),
            torch.get_num_threads(),
        )
        bias = None
        if linear.bias is not None:
            bias = torch.zeros(count * PANEL)
            bias[: self.out_features] = linear.bias.detach()
        self.register_buffer("panels", panels, persistent=False)
        self.register_buffer("padded_bias", bias, persistent=False)
        self._linear = library.linear

    @property
    def weight(self) -> Tensor:
        """A copy of the weights [N, K], for code that looks at them."""
        return self.panels.transpose(1, 2).reshape(-1, self.in_features)[: self.out_features]

    @property
    def bias(self) -> Tensor | None:
        """The bias [N], if there is one."""
        return None if self.padded_bias is None else self.padded_bias[: self.out_features]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 [..., N] for float32 inputs [..., K]."""
        assert inputs.dtype == torch.float32
        assert inputs.shape[-1] == self.in_features
        rows = inputs.reshape(-1, self.in_features)
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        out = torch.empty(*inputs.shape[:-1], self.out_features)
        self._linear(
            rows.data_ptr(),
            len(rows),
            rows.stride(0),
            self.panels.data_ptr(),
            None if self.padded_bias is None else self.padded_bias.data_ptr(),
            out.data_ptr(),
            self.out_features,
            self.in_features,
            torch.get_num_threads(),
        )
        return out

    def extra_repr(self) -> str:
        """Return the sizes, as nn.Linear prints them."""
        has_bias = self.padded_bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={has_bias}"


def pack_linears(network: nn.Module) -> int:
    """Swap the float32 linear layers of `network` on the CPU for packed ones; return how many.

    One after the other, so that never more than one layer's weights exist twice. A tensor that
    something else uses as well, as an embedding does that is tied to the head, stays for that.
    Subclasses of nn.Linear and layers with hooks stay as they are, and all do without a compiler.
    """
    library = load()
    if library is None:
        return 0
    swapped: dict[nn.Module, PackedLinear] = {}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child not in swapped and _can_pack(child):
                assert isinstance(child, nn.Linear)
                swapped[child] = PackedLinear(library, child).train(child.training)
                # A second user of this layer finds it below; its weights are not needed for that.
                child.weight = nn.Parameter(child.weight.new_empty(0), requires_grad=False)
            if child in swapped:
                setattr(parent, name, swapped[child])
    return len(swapped)


def _can_pack(module: nn.Module) -> bool:
    if type(module) is not nn.Linear or module._forward_hooks or module._forward_pre_hooks:
        return False
    weight, bias = module.weight, module.bias
    tensors = (weight,) if bias is None else (weight, bias)
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
