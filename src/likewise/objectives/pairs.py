"""Losses on pairs with a reference: DPO, IPO, NCA."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from likewise.objectives.batches import PairLogps
from likewise.objectives.kernels import logistic, per_token, precise
from likewise.objectives.objective import State
from likewise.objectives.options import Average, Positive


def dpo(batch: PairLogps, *, beta: Positive = 0.1) -> Tensor:
    """Logistic loss on the implicit-reward margin of each pair.

    Formula: ℓ(β·(h_w − h_l)); h = log π − log π_ref of the chosen (w) and rejected (l) side; ℓ(z) = −log σ(z).
    Shapes: batch fields and result are [B].
    Units: logps in nats, summed over completion tokens; beta is reward per nat.
    Options:
        beta: reward per nat of log-ratio; smaller lets the policy move further from the reference.
    Raises: ValueError without reference log-probs.
    Source: arXiv:2305.18290, Eq. 7. Direct Preference Optimization: Your Language Model is Secretly a Reward Model.
    """
    return logistic(beta * (batch.chosen_log_ratio - batch.rejected_log_ratio))


def ipo(batch: PairLogps, *, tau: Positive = 0.1, average: Average = "sum") -> Tensor:
    """Squared distance of each log-ratio margin from a finite target, so that a margin once won is not pushed on.

    Formula: (h_w − h_l − 1/(2τ))²; h = log π − log π_ref of the chosen (w) and rejected (l) side.
    Shapes: batch fields and result are [B].
    Units: logps in nats, summed over completion tokens; tau is per nat, the target 1/(2τ) in nats.
    Options:
        tau: strength of the pull to the reference; the target margin is 1/(2·tau).
        average: "sum" takes h over the whole completion, as the paper does; "token_mean" divides h of each side by
            its number of tokens, so that the target is a margin per token: another problem, and a common one.
    Raises: ValueError without reference log-probs.
    Source: arXiv:2310.12036, Eq. 17. A General Theoretical Paradigm to Understand Learning from Human Preferences.
    """
    return (_ipo_margin(batch, average) - 1 / (2 * tau)).square()


def nca(batch: PairLogps, *, beta: Positive = 0.01) -> Tensor:
    """Noise-contrastive loss on absolute rewards: lifts the chosen side itself, not the margin alone.

    Formula: ℓ(r_w) + ½ℓ(−r_w) + ½ℓ(−r_l); r = β·(log π − log π_ref); ℓ(z) = −log σ(z).
    Shapes: batch fields and result are [B].
    Units: logps in nats, summed over completion tokens; beta is reward per nat.
    Options:
        beta: reward per nat of log-ratio; the chosen reward settles near log 2, so beta sets how far it goes.
    Raises: ValueError without reference log-probs.
    Source: arXiv:2402.05369, section 4. Noise Contrastive Alignment of Language Models with Explicit Rewards.
    """
    chosen, rejected = beta * batch.chosen_log_ratio, beta * batch.rejected_log_ratio
    return logistic(chosen) + (logistic(-chosen) + logistic(-rejected)) / 2


def _ipo_margin(batch: PairLogps, average: Average) -> Tensor:
    chosen, rejected = batch.chosen_log_ratio, batch.rejected_log_ratio
    if average == "token_mean":
        chosen, rejected = per_token(chosen, batch.length_chosen), per_token(rejected, batch.length_rejected)
    return chosen - rejected


def describe_margin(batch: PairLogps, state: State, **_: Any) -> dict[str, float]:
    """Share of pairs with the chosen side ahead: in log-ratio (`accuracy`), in log-prob (`ranking_accuracy`)."""
    return _accuracies(batch, batch.chosen_log_ratio - batch.rejected_log_ratio)


def describe_ipo(batch: PairLogps, state: State, *, tau: float, average: Average, **_: Any) -> dict[str, float]:
    """The accuracies, the mean log-ratio `margin` and its `target`, nats (per token with token_mean)."""
    margin = _ipo_margin(batch, average)
    return _accuracies(batch, margin) | {"margin": float(precise(margin).mean()), "target": 1 / (2 * tau)}


def _accuracies(batch: PairLogps, margin: Tensor) -> dict[str, float]:
    ranking = batch.policy_chosen - batch.policy_rejected
    return {"accuracy": _share_ahead(margin), "ranking_accuracy": _share_ahead(ranking)}


def _share_ahead(margin: Tensor) -> float:
    return float((precise(margin).sign() + 1).mean() / 2)
