"""Random batches of every kind, with every optional field filled."""

from __future__ import annotations

import numpy as np
import torch

from likewise.objectives import GroupLogps, LabelLogps, PairLogps


def tensor(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype)


def random_label(rng, rows, *, spread=5.0, dtype=torch.float64, soft=False):
    """Log-probs around -50 whose log-ratios have standard deviation `spread`; a third of the rows drew no mismatch."""
    reference = -50 + 20 * rng.standard_normal(rows)
    drew_none = rng.random(rows) < 0.3
    other = -60 + 20 * rng.standard_normal(rows)
    moved = other + spread * rng.standard_normal(rows)
    return LabelLogps(
        policy=tensor(reference + spread * rng.standard_normal(rows), dtype),
        reference=tensor(reference, dtype),
        length=tensor(rng.integers(1, 60, rows), torch.long),
        desirable=tensor(rng.random(rows), dtype) if soft else tensor(rng.random(rows) < 0.6, torch.bool),
        weight=tensor(rng.uniform(0.2, 3, rows), dtype),
        mismatched_policy=tensor(np.where(drew_none, np.nan, moved), dtype),
        mismatched_reference=tensor(np.where(drew_none, np.nan, other), dtype),
    )


def random_pair(rng, rows, *, spread=5.0, dtype=torch.float64):
    chosen, rejected = (-50 + 20 * rng.standard_normal(rows) for _ in range(2))
    return PairLogps(
        policy_chosen=tensor(chosen + spread * rng.standard_normal(rows), dtype),
        policy_rejected=tensor(rejected + spread * rng.standard_normal(rows), dtype),
        reference_chosen=tensor(chosen, dtype),
        reference_rejected=tensor(rejected, dtype),
        length_chosen=tensor(rng.integers(1, 60, rows), torch.long),
        length_rejected=tensor(rng.integers(1, 60, rows), torch.long),
        rating_chosen=tensor(rng.uniform(3, 5, rows), dtype),
        rating_rejected=tensor(rng.uniform(0, 3, rows), dtype),
        tie=tensor(rng.random(rows) < 0.2, torch.bool),
        weight=tensor(rng.uniform(0.2, 3, rows), dtype),
    )


def random_group(rng, rows, *, spread=5.0, dtype=torch.float64):
    reference = -50 + 20 * rng.standard_normal(rows)
    return GroupLogps(
        policy=tensor(reference + spread * rng.standard_normal(rows), dtype),
        reference=tensor(reference, dtype),
        length=tensor(rng.integers(1, 60, rows), torch.long),
        group=tensor(np.arange(rows) // 3, torch.long),
        rating=tensor(rng.integers(0, 5, rows), dtype),
        weight=tensor(rng.uniform(0.2, 3, rows), dtype),
    )


MAKERS = {"label": random_label, "pair": random_pair, "group": random_group}
POLICY = {
    "label": ["policy"],
    "pair": ["policy_chosen", "policy_rejected"],
    "group": ["policy"],
}
REFERENCE = {
    "label": ["reference"],
    "pair": ["reference_chosen", "reference_rejected"],
    "group": ["reference"],
}


def random_batch(objective, seed, rows=8, **how):
    return MAKERS[objective.feedback](np.random.default_rng(seed), rows, **how)
