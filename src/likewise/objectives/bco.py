"""BCO: a thumb is a class label, the implicit reward is the logit, a reward shift tightens the bound on DPO."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from likewise.objectives.batches import LabelLogps
from likewise.objectives.kernels import (
    class_masses,
    constant,
    finite_exp,
    log_mean_exp,
    logistic,
    mix,
    precise,
    thin_pairs,
)
from likewise.objectives.objective import Memory, State, Sums
from likewise.objectives.options import Positive, Rate

CLASSES = ("desirable", "undesirable")


def bco(batch: LabelLogps, state: State, *, beta: Positive = 0.1, shift_rate: Rate = 0.1) -> Tensor:
    """Binary classification of thumbs by implicit reward, measured from a shift half-way between the classes.

    Formula: up: ℓ(r − δ); down: ℓ(−(r − δ)); r = β·(log π − log π_ref); δ = ½(μ_up + μ_down); ℓ(z) = −log σ(z).
    State: μ_up and μ_down, an exponential moving average each of the mean reward of a class, over whole steps. The
        first step that shows a class sets its mean; a class not yet seen counts as 0, where all rewards start.
        δ is frozen during a step, moves after it, is never clamped and carries no gradient.
    Shapes: batch fields and result are [B].
    Units: logps in nats, summed over completion tokens; beta is reward per nat.
    Options:
        beta: reward per nat of log-ratio; smaller lets the policy move further from the reference.
        shift_rate: how far a class mean moves towards the mean of a step; 1 forgets all earlier steps.
    Notes: The two class expectations weigh the same in the paper: give unequal classes weights, or oversample, outside
        the loss. Class means count each row by weight x desirable, so a row of weight 2 equals two rows. A soft label d
        mixes both losses, d·up + (1 − d)·down.
    Raises: ValueError without reference log-probs.
    Source: arXiv:2404.04656, Eq. 8. Binary Classifier Optimization for Large Language Model Alignment.
    """
    z = beta * batch.log_ratio
    z = z - constant(reward_shift(state), z)
    return mix(batch.liked, logistic(z), logistic(-z))


def bce(batch: LabelLogps, *, beta: Positive = 0.1) -> Tensor:
    """Binary classification of thumbs by implicit reward: BCO without its reward shift.

    Formula: up: ℓ(r); down: ℓ(−r); r = β·(log π − log π_ref); ℓ(z) = −log σ(z).
    Shapes: batch fields and result are [B].
    Units: logps in nats, summed over completion tokens; beta is reward per nat.
    Options:
        beta: reward per nat of log-ratio; smaller lets the policy move further from the reference.
    Raises: ValueError without reference log-probs.
    Source: arXiv:2404.04656, Theorem 1. Binary Classifier Optimization for Large Language Model Alignment.
    """
    z = beta * batch.log_ratio
    return mix(batch.liked, logistic(z), logistic(-z))


def reward_shift(state: State) -> Tensor:
    """δ: half-way between the two class means, float64."""
    return (state["desirable_mean"] + state["undesirable_mean"]) / 2


def _init(**_: Any) -> State:
    return {f"{name}_{part}": torch.zeros((), dtype=torch.float64) for name in CLASSES for part in ("mean", "seen")}


def _observe(batch: LabelLogps, state: State, *, beta: float, **_: Any) -> Sums:
    reward = beta * precise(batch.log_ratio)
    masses = dict(zip(CLASSES, class_masses(batch), strict=True))
    return {name: ((mass * reward).sum(), mass.sum()) for name, mass in masses.items()}


def _update(state: State, sums: Sums, *, shift_rate: float, **_: Any) -> State:
    new = {}
    for name in CLASSES:
        mean, seen = state[f"{name}_mean"], state[f"{name}_seen"]
        total, count = (part.to(mean) for part in sums[name])
        step_mean = total / torch.where(count > 0, count, 1.0)
        moved = torch.where(seen > 0, torch.lerp(mean, step_mean, shift_rate), step_mean)
        new[f"{name}_mean"] = torch.where(count > 0, moved, mean)
        new[f"{name}_seen"] = torch.where(count > 0, torch.ones_like(seen), seen)
    return new


BCO_MEMORY = Memory(init=_init, observe=_observe, update=_update)


def describe_bco(batch: LabelLogps, state: State, *, beta: float, **_: Any) -> dict[str, float]:
    """The `shift` that was used; the mean reward of each class in this step; how loose the bound on DPO is.

    `error_term` is the mean of E over all up/down pairs of the step; `bound_gap` the mean of BCE bound - DPO loss.
    """
    return _describe(batch, reward_shift(state), beta)


def describe_bce(batch: LabelLogps, state: State, *, beta: float, **_: Any) -> dict[str, float]:
    """What BCO logs, at shift 0."""
    return _describe(batch, torch.zeros((), dtype=torch.float64), beta)


def _describe(batch: LabelLogps, shift: Tensor, beta: float) -> dict[str, float]:
    reward = beta * precise(batch.log_ratio)
    shift = constant(shift, reward)
    classes = [(reward[mass > 0], mass[mass > 0]) for mass in class_masses(batch)]
    found = {"shift": float(shift)}
    for name, (rewards, mass) in zip(CLASSES, classes, strict=True):
        if len(rewards):
            found[f"{name}_reward"] = float((rewards * mass).sum() / mass.sum())
    if all(len(rewards) for rewards, _ in classes):
        (up, up_mass), (down, down_mass) = classes
        # E of a pair is a sum of one term a side, so its mean over all pairs needs no pairs.
        log_error = torch.logaddexp(log_mean_exp(shift - up, up_mass), log_mean_exp(down - shift, down_mass))
        found["error_term"] = finite_exp(log_error)
        found["bound_gap"] = _bound_gap(classes[0], classes[1], shift)
    return found


def _bound_gap(up: tuple[Tensor, Tensor], down: tuple[Tensor, Tensor], shift: Tensor) -> float:
    """Mean over up/down pairs of log(1 + E/(1 + e^{-(r_w - r_l)})), the BCE bound of a pair minus its DPO loss."""
    (chosen, chosen_mass), (rejected, rejected_mass) = thin_pairs(up, down)
    chosen, rejected = chosen[:, None], rejected[None, :]
    # log E - log(1 + e^-(r_w - r_l)), both as softplus: nothing overflows, and the gap cannot fall below 0.
    log_ratio = torch.logaddexp(shift - chosen, rejected - shift) - logistic(chosen - rejected)
    gap = logistic(-log_ratio)
    return float((chosen_mass @ gap @ rejected_mass) / (chosen_mass.sum() * rejected_mass.sum()))
