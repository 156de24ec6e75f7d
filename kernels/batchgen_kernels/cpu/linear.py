"""Linear layers whose weights are packed once for the C++ file: float32 on the CPU.

A library packs the weights again on every call, which costs most where there are few rows.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from batchgen_kernels.cpu.library import load
from batchgen_kernels.cpu.panels import addressed, pack, pack_int8, pad


class PackedLinear(nn.Module):
    """Computes what the nn.Linear it was made from does, without gradients.

    An output has the same bits whatever the other rows are and however many threads compute.
    """

    panels: Tensor
    scales: Tensor | None
    padded_bias: Tensor | None

    def __init__(self, library: ctypes.CDLL, linear: nn.Linear, *, int8: bool = False) -> None:
        """Pack the float32 weights of `linear`, which may be dropped afterwards; `int8` rounds."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight
        panels, scales = pack_int8(weight) if int8 else (pack(library, weight), None)
        self.register_buffer("panels", panels, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        bias = None if linear.bias is None else pad(linear.bias)
        self.register_buffer("padded_bias", bias, persistent=False)
        self._linear = library.linear

    @property
    def weight(self) -> Tensor:
        """A copy of the weights [N, K], for code that looks at them."""
        panels = self.panels if self.scales is None else self.panels * self.scales[:, None]
        return panels.transpose(1, 2).reshape(-1, self.in_features)[: self.out_features]

    @property
    def bias(self) -> Tensor | None:
        """The bias [N], if there is one."""
        return None if self.padded_bias is None else self.padded_bias[: self.out_features]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 [..., N] for float32 inputs [..., K]."""
        rows = rows_of(inputs, self.in_features)
        out = torch.empty(len(rows), self.out_features)
        self._linear(
            rows.data_ptr(),
            len(rows),
            rows.stride(0),
            addressed(self.panels, self.scales),
            None if self.padded_bias is None else self.padded_bias.data_ptr(),
            out.data_ptr(),
            self.out_features,
            self.in_features,
            torch.get_num_threads(),
        )
        return out.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return the sizes, as nn.Linear prints them."""
        has_bias = self.padded_bias is not None
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={has_bias}"
        return sizes if self.scales is None else f"{sizes}, int8"


def can_pack(module: nn.Module) -> bool:
    """Return whether `module` is a float32 nn.Linear on the CPU that nothing hooks into."""
    if type(module) is not nn.Linear or module._forward_hooks or module._forward_pre_hooks:
        return False
    weight, bias = module.weight, module.bias
    tensors = (weight,) if bias is None else (weight, bias)
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def pack_linears(network: nn.Module, *, int8: bool = False) -> int:
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
            if child not in swapped and can_pack(child):
                assert isinstance(child, nn.Linear)
                swapped[child] = PackedLinear(library, child, int8=int8).train(child.training)
                # A second user of this layer finds it below; its weights are not needed for that.
                release(child)
            if child in swapped:
                setattr(parent, name, swapped[child])
    return len(swapped)


def release(linear: nn.Linear) -> None:
    """Let go of the weights of `linear`, wherever it is still held."""
    linear.weight = nn.Parameter(linear.weight.new_empty(0), requires_grad=False)


def rows_of(inputs: Tensor, width: int) -> Tensor:
    """Return float32 `inputs` [..., width] as rows [T, width], each of them contiguous."""
    assert inputs.dtype == torch.float32
    assert inputs.shape[-1] == width
    rows = inputs.reshape(-1, width)
    return rows if rows.stride(1) == 1 else rows.contiguous()
