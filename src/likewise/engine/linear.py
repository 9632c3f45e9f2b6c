"""float32 matrix products by oneDNN, on processors where the library that torch calls by default is half as fast.

torch multiplies float32 matrices on x86 with MKL, which keeps to AVX2 on processors that Intel did not make. oneDNN,
which torch ships too, uses AVX-512 there: about twice as fast for the layers of a model (docs/performance.md). It is
the same arithmetic, float32 throughout, summed in another order.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# oneDNN keeps the compiled code of every shape it met, and packed rows have a new width at every step.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


@cache
def helps_here() -> bool:
    """Whether this is such a machine. A rule, not a measurement: a resumed run must take the same path."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    processor = Path("/proc/cpuinfo")
    return processor.exists() and "GenuineIntel" not in processor.read_text()


def usable(*tensors: Tensor) -> bool:
    """Whether these operands can take the faster way: plain float32 on a CPU, without autocast."""
    plain = all(type(t) in (Tensor, nn.Parameter) and t.device.type == "cpu" for t in tensors)
    return (
        helps_here() and plain and all(t.dtype == torch.float32 for t in tensors)
    ) and not torch.is_autocast_enabled("cpu")


def times_transposed(left: Tensor, right: Tensor) -> Tensor:
    """left @ right.T without gradient. Either may be a transposed view; nothing is copied."""
    if left.numel() and right.numel() and usable(left, right):
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
        return product
    return F.linear(left, right)


class _Linear(torch.autograd.Function):
    """x @ weight.T, whose gradients are two more products of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return times_transposed(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = times_transposed(rows, weight.t()).view(x.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = times_transposed(rows.t(), x.reshape(-1, x.shape[-1]).t())
        return grad_x, grad_weight


class FastLinear(nn.Linear):
    """nn.Linear by oneDNN. A class of its own rather than a patched method, so that a copy uses its own weights."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == 0 or not usable(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        y: Tensor = _Linear.apply(x, self.weight)
        return y if self.bias is None else y + self.bias


def use_fast_linear(model: nn.Module) -> None:
    """Every plain nn.Linear of the model multiplies by oneDNN from now on, where that helps."""
    if helps_here():
        exchange(model, nn.Linear, FastLinear)


def use_plain_linear(model: nn.Module) -> None:
    """Undo `use_fast_linear`: a model that is handed out is as transformers made it."""
    exchange(model, FastLinear, nn.Linear)


def exchange(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    """Give every module of exactly the class `old` the class `new`, which differs in what it does alone."""
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
