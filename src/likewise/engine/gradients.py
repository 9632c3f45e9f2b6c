"""Gradients of vocabulary-sized weights, added where they belong instead of being made whole and added afterwards.

A micro-batch touches a few hundred rows of an embedding, yet autograd makes a dense gradient of the size of the
vocabulary for it and adds that to the one that is there: at a small model that is most of the traffic of a step. With
one worker, where nobody waits for the gradient to be announced, rows are added to `weight.grad` directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likewise.engine.linear import exchange, times_transposed, usable

_BLOCK = 8192  # rows of a vocabulary-sized gradient that are made at once


def grad_of(weight: nn.Parameter) -> Tensor:
    """weight.grad, which is made if there is none yet."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def subtract_product(total: Tensor, p: Tensor, rows: Tensor) -> None:
    """total -= p.T @ rows, without a second tensor of that size.

    Shapes: total [vocabulary, hidden], p [tokens, vocabulary], rows [tokens, hidden].
    """
    if not usable(total, p, rows):
        total.addmm_(p.t(), rows, alpha=-1)
        return
    for start in range(0, len(total), _BLOCK):
        part = slice(start, start + _BLOCK)
        total[part].sub_(times_transposed(p[:, part].t(), rows.t()))


class _Embed(torch.autograd.Function):
    """weight[ids], whose backward pass adds to `weight.grad` and returns nothing."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: nn.Parameter, padding: int | None) -> Tensor:
        ctx.ids, ctx.weight, ctx.padding = ids, weight, padding
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:
        ids, rows, weight = ctx.ids.reshape(-1), grad.reshape(-1, grad.shape[-1]), ctx.weight
        if ctx.padding is not None:  # as nn.Embedding: the padding's row does not learn from here
            kept = ids != ctx.padding
            ids, rows = ids[kept], rows[kept]
        grad_of(weight).index_add_(0, ids, rows.to(weight.dtype))
        return None, None, None


class DirectEmbedding(nn.Embedding):
    """nn.Embedding that adds its gradient where it belongs."""

    def forward(self, ids: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and self.weight.requires_grad):
            return F.embedding(ids, self.weight)
        result: Tensor = _Embed.apply(ids, self.weight, self.padding_idx)
        return result


def use_direct_embedding(model: nn.Module) -> None:
    """Every plain nn.Embedding of the model, from now on."""
    for module in model.modules():
        if type(module) is nn.Embedding and not (module.sparse or module.scale_grad_by_freq or module.max_norm):
            module.__class__ = DirectEmbedding


def use_plain_embedding(model: nn.Module) -> None:
    """Undo `use_direct_embedding`."""
    exchange(model, DirectEmbedding, nn.Embedding)
