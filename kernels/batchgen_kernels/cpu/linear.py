"""Float32 linear layers on the CPU whose weights are packed once.

torch's libraries pack the weights again in every call, which costs most if there are few rows.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from batchgen_kernels.cpu.library import load
from batchgen_kernels.cpu.panels import addressed, pack, pack_int8, pad


class PackedLinear(nn.Module):
    """A module with the same output as the nn.Linear it was made from, without gradients.

    A row's output has the same bits for any other rows and any number of threads.
    """

    panels: Tensor
    scales: Tensor | None
    padded_bias: Tensor | None

    def __init__(self, library: ctypes.CDLL, linear: nn.Linear, *, int8: bool = False) -> None:
        """Pack the float32 weights of `linear`, with `int8` in eight bits; no reference is kept."""
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
        """A copy of the weights [N, K], for code that reads them."""
        panels = self.panels if self.scales is None else self.panels * self.scales[:, None]
        return panels.transpose(1, 2).reshape(-1, self.in_features)[: self.out_features]

    @property
    def bias(self) -> Tensor | None:
        """The bias [N], None if there is none."""
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
        """Return the sizes in the form that nn.Linear prints."""
        has_bias = self.padded_bias is not None
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={has_bias}"
        return sizes if self.scales is None else f"{sizes}, int8"


def can_pack(module: nn.Module) -> bool:
    """Return whether `module` is a float32 nn.Linear on the CPU without hooks."""
    if type(module) is not nn.Linear or module._forward_hooks or module._forward_pre_hooks:
        return False
    weight, bias = module.weight, module.bias
    tensors = (weight,) if bias is None else (weight, bias)
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def pack_linears(network: nn.Module, *, int8: bool = False) -> int:
    """Replace the float32 linear layers of `network` on the CPU by packed ones; return how many.

    They are replaced one by one, so that the weights of at most one layer exist twice. If another
    module also uses a tensor, as an embedding tied to the head does, it keeps it. Subclasses of
    nn.Linear and layers with hooks are not replaced; without a compiler no layer is.
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
                # If a second parent has this layer, it gets the same packed one below.
                release(child)
            if child in swapped:
                setattr(parent, name, swapped[child])
    return len(swapped)


def release(linear: nn.Linear) -> None:
    """Free the weights of `linear`, even if other objects still hold the module."""
    linear.weight = nn.Parameter(linear.weight.new_empty(0), requires_grad=False)


def rows_of(inputs: Tensor, width: int) -> Tensor:
    """Return float32 `inputs` [..., width] as [T, width] whose rows are contiguous."""
    assert inputs.dtype == torch.float32
    assert inputs.shape[-1] == width
    rows = inputs.reshape(-1, width)
    return rows if rows.stride(1) == 1 else rows.contiguous()
