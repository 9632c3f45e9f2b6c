"""SFT: plain likelihood of the completions people liked."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from likewise.objectives.batches import LabelLogps
from likewise.objectives.kernels import class_masses, per_token, precise
from likewise.objectives.objective import State
from likewise.objectives.options import Average


def sft(batch: LabelLogps, *, average: Average = "token_mean") -> Tensor:
    """Negative log-likelihood of thumbs up; thumbs down contribute nothing.

    Formula: up: −log π / n, or −log π with average = sum; down: 0; n = number of completion tokens.
    Shapes: batch fields and result are [B].
    Units: nats per token with token_mean, nats with sum.
    Options:
        average: "token_mean" is the mean over the tokens of each completion, so that short and long ones weigh the
            same; "sum" is their sum, so that every token weighs the same.
    Notes: A soft label d weighs its row by d. Rows with thumbs down still count in the mean of a step.
    Source: no paper; maximum likelihood, the usual first stage of DPO (arXiv:2305.18290) and KTO (arXiv:2402.01306).
    """
    logp = per_token(batch.policy, batch.length) if average == "token_mean" else batch.policy
    return -batch.liked * logp


def describe_sft(batch: LabelLogps, state: State, **_: Any) -> dict[str, float]:
    """`nll_per_token`: nats, over all tokens of the liked completions."""
    up, _down = class_masses(batch)
    tokens = float((up * precise(batch.length)).sum())
    return {"nll_per_token": float(-(up * precise(batch.policy)).sum()) / tokens} if tokens > 0 else {}
