"""Arithmetic that several objectives share. Values and gradients stay finite at any log-ratio a run can meet."""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from likewise.objectives.batches import LabelLogps

MAX_PAIRS = 1 << 18


def logistic(z: Tensor) -> Tensor:
    """-log sigmoid(z): the loss of a logit `z` that should be large."""
    # Not softplus(-z): PyTorch's softplus turns linear at 20 and loses the tail there.
    return -F.logsigmoid(z)


def mix(liked: Tensor, when_up: Tensor, when_down: Tensor) -> Tensor:
    """The loss of a label that is up with probability `liked`."""
    return liked * when_up + (1 - liked) * when_down


def per_token(total: Tensor, length: Tensor) -> Tensor:
    """A sum over tokens as a mean over them. A completion without tokens has sum 0 and keeps it."""
    return total / length.detach().to(total.dtype).clamp(min=1)


def precise(value: Tensor) -> Tensor:
    """Detached and float64, for statistics that add many rows. Goes to the CPU where float64 does not exist."""
    value = value.detach()
    return (value.cpu() if value.device.type == "mps" else value).double()


def constant(value: Tensor, like: Tensor) -> Tensor:
    """A number of the state as a constant beside `like`: same dtype and device, no gradient."""
    return value.detach().to(like.dtype).to(like.device)


def class_masses(batch: LabelLogps) -> tuple[Tensor, Tensor]:
    """How much each row counts as up and as down: weight x desirable, weight x (1 - desirable); float64."""
    liked = precise(batch.desirable)
    weight = torch.ones_like(liked) if batch.weight is None else precise(batch.weight)
    return weight * liked, weight * (1 - liked)


def log_mean_exp(value: Tensor, mass: Tensor) -> Tensor:
    """log of the mass-weighted mean of exp(value), without overflow."""
    return torch.logsumexp(value + mass.log(), 0) - mass.sum().log()


def finite_exp(value: Tensor) -> float:
    """exp(value), or the largest float where that would be infinite: metrics are written as JSON."""
    return min(float(value.exp()), sys.float_info.max)


def thin(value: Tensor, mass: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """At most `count` rows that stand for all: the medians of `count` strata of equal mass. Row order is no matter."""
    if len(value) <= count:
        return value, mass
    value, order = value.sort()
    heaps = mass[order].cumsum(0)
    middles = (torch.arange(count, dtype=heaps.dtype, device=heaps.device) + 0.5) * (heaps[-1] / count)
    return value[torch.searchsorted(heaps, middles)], torch.full_like(middles, 1.0)


def thin_pairs(
    up: tuple[Tensor, Tensor], down: tuple[Tensor, Tensor], pairs: int = MAX_PAIRS
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Thin (value, mass) of two classes until they form at most `pairs` pairs."""
    n, m = len(up[0]), len(down[0])
    if n * m <= pairs:
        return up, down
    side = int(pairs**0.5)
    return thin(*up, max(side, pairs // m)), thin(*down, max(side, pairs // n))
