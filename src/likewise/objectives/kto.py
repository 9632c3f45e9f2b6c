"""KTO: the value of a completion, gained or lost from a baseline that estimates how far the policy has moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from likewise.objectives.batches import LabelLogps
from likewise.objectives.kernels import constant, mix, precise
from likewise.objectives.objective import Memory, State, Sums
from likewise.objectives.options import NotNegative, Positive


def kto(
    batch: LabelLogps,
    state: State,
    *,
    beta: Positive = 0.1,
    desirable_weight: NotNegative = 1.0,
    undesirable_weight: NotNegative = 1.0,
) -> Tensor:
    """Prospect-theoretic value of each completion, measured from the baseline z₀ of its step.

    Formula: up: λ_D·(1 − σ(β(h − z₀))); down: λ_U·(1 − σ(β(z₀ − h))); h = log π − log π_ref;
        z₀ = max(0, mean of h over mismatched prompts and completions).
    State: z₀ in nats, made anew for every step from all its mismatched completions, before the losses of that step;
        the mean is taken over the whole step, then clamped, and carries no gradient. Without any mismatch z₀ is 0.
    Shapes: batch fields and result are [B]; NaN in `mismatched_*` where a row drew none.
    Units: logps in nats, summed over completion tokens; beta is per nat.
    Options:
        beta: how fast value saturates, per nat of log-ratio.
        desirable_weight: λ_D, weight of thumbs up.
        undesirable_weight: λ_U, weight of thumbs down.
    Notes: For n_D ups and n_U downs the paper advises λ_D·n_D / (λ_U·n_U) between 1 and 4/3. The baseline estimates a
        divergence and counts each mismatch once, whatever the weight of its row.
    Raises: ValueError without reference log-probs.
    Source: arXiv:2402.01306, Eq. 8. KTO: Model Alignment as Prospect Theoretic Optimization.
    """
    log_ratio = batch.log_ratio
    z = beta * (log_ratio - constant(state["baseline"], log_ratio))
    return mix(batch.liked, desirable_weight * torch.sigmoid(-z), undesirable_weight * torch.sigmoid(z))


STATE = ("baseline", "baseline_raw", "baseline_stderr", "mismatched")


def _init(**_: Any) -> State:
    return {name: torch.zeros((), dtype=torch.float64) for name in STATE}


def _observe(batch: LabelLogps, state: State, **_: Any) -> Sums:
    ratio, drawn = _mismatched_log_ratio(batch)
    # Squares from the last baseline: far from 0, plain sums of squares lose the variance to rounding.
    deviation = torch.where(drawn, ratio - constant(state["baseline_raw"], ratio), 0.0)
    count = drawn.sum().to(ratio.dtype)
    return {"mismatched": (ratio.sum(), count), "mismatched_square": (deviation.square().sum(), count)}


def _mismatched_log_ratio(batch: LabelLogps) -> tuple[Tensor, Tensor]:
    """Float64 [B], 0 where a row drew no mismatch, and which rows drew one."""
    if batch.mismatched_policy is None or batch.mismatched_reference is None:
        none = torch.zeros_like(precise(batch.policy))
        return none, none.bool()
    policy, reference = precise(batch.mismatched_policy), precise(batch.mismatched_reference)
    drawn = ~(policy.isnan() & reference.isnan())
    return torch.where(drawn, policy - reference, 0.0), drawn


def _update(state: State, sums: Sums, **_: Any) -> State:
    old = state["baseline_raw"]
    total, count = (part.to(old) for part in sums["mismatched"])
    mean = total / count.clamp(min=1)
    squares = sums["mismatched_square"][0].to(old) - count * (mean - old).square()
    stderr = (squares.clamp(min=0) / (count - 1).clamp(min=1) / count.clamp(min=1)).sqrt()
    return {"baseline": mean.clamp(min=0), "baseline_raw": mean, "baseline_stderr": stderr, "mismatched": count.clone()}


KTO_MEMORY = Memory(init=_init, observe=_observe, update=_update, before=True)


def describe_kto(batch: LabelLogps, state: State, **_: Any) -> dict[str, float]:
    """`baseline` after and `baseline_raw` before the clamp, nats, and the standard error of the latter."""
    found = {"baseline": float(state["baseline"])}
    if state["mismatched"] > 0:
        found["baseline_raw"] = float(state["baseline_raw"])
    if state["mismatched"] > 1:
        found["baseline_stderr"] = float(state["baseline_stderr"])
    return found
