"""Attention over packed rows: several sequences one after another in a row, each seeing only itself.

On a CPU this beats both padding (nothing is computed for padding) and block masks (no [width, width] mask exists): the
row is split at the sequence boundaries and every sequence takes the plain causal kernel. Everything else in the model
(projections, norms, feed-forward) works on the whole row at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PACKED = "likewise_packed"


def use_packed_attention(model: Any) -> None:
    """Switch a transformers model to packed rows. Raises: ValueError where its attention is not exchangeable."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, _no_mask)
    if not model._can_set_attn_implementation():
        raise ValueError(f"{type(model).__name__} has an attention of its own")
    if model.config._attn_implementation != PACKED:
        model._own_attention = model.config._attn_implementation
        model.set_attn_implementation(PACKED)


def use_own_attention(model: Any) -> None:
    """Switch back to the attention the model was loaded with, for padded rows and for generation."""
    if model.config._attn_implementation == PACKED:
        model.set_attn_implementation(model._own_attention)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a packed row.

    Shapes: query [1, heads, width, size], key and value [1, key heads, width, size]; the result is
    [1, width, heads, size], as transformers' attention functions return it.
    Raises: NotImplementedError for attention sinks and position biases, whose families then use padded rows.
    """
    if s_aux is not None or position_bias is not None or attention_mask is not None or cu_seq_lens_q is None:
        raise NotImplementedError("packed rows take causal attention with an optional window and soft cap alone")
    if not getattr(module, "is_causal", True):
        raise NotImplementedError("packed rows are for causal attention")
    sizes = cu_seq_lens_q.diff().tolist()
    parts = [
        _one(q, k, v, scaling=scaling, window=sliding_window, softcap=softcap)
        for q, k, v in zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2))
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _one(
    query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    length = query.shape[2]
    if softcap is not None:
        return _soft_capped(query, key, value, scaling, window, softcap)
    if window is None or length <= window:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    mask = _window_mask(length, window, query.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)


def _soft_capped(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, softcap: float
) -> Tensor:
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    mask = _window_mask(query.shape[2], window, query.device)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    return weights @ value


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """True where a query may look: at itself and back, over `window` positions in all."""
    place = torch.arange(length, device=device)
    distance = place[:, None] - place[None, :]
    mask = distance >= 0
    return mask if window is None else mask & (distance < window)
