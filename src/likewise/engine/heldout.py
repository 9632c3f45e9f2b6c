"""Feedback kept apart, and how well the trained model's implicit rewards agree with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from likewise.data.tokens import TokenizedFeedback
from likewise.engine.sequences import own_sequences
from likewise.engine.trainer import Trainer
from likewise.estimates import Estimate, auc, proportion


@dataclass(frozen=True)
class HeldOut:
    """`measure` is "AUC" for thumbs and "accuracy" for pairs; None where it is not defined."""

    measure: str
    estimate: Estimate | None
    examples: int
    note: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"held-out {self.measure} {self.estimate}" if self.estimate else self.note


def split(tokens: TokenizedFeedback, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, held out) example indices; all rows of a prompt are on one side."""
    every = np.arange(len(tokens))
    if not share:
        return every, every[:0]
    prompts = tokens.example_prompt
    names = np.unique(prompts)
    kept = np.random.default_rng([seed, 2]).permutation(names)[: round(share * len(names))]
    held = np.isin(prompts, kept)
    return every[~held], every[held]


def measure(trainer: Trainer, held: np.ndarray) -> HeldOut:
    """Score held-out examples with policy and reference; every worker must call this."""
    own = own_sequences(trainer.feedback, held)
    scored = trainer.scorer.score(trainer.sequences, own, reference=trainer.reference).double().numpy()
    reward = scored[0] - scored[1] if trainer.reference is not None else scored[0]
    what = "log-ratio" if trainer.reference is not None else "log-prob"
    if trainer.feedback.kind == "label":
        assert trainer.feedback.label is not None
        positive = trainer.feedback.label[held] > 0.5
        found = auc(reward, positive)
        return HeldOut("AUC", found, len(held), f"{what} of {len(held):,} held-out thumbs; one class alone has no AUC")
    if trainer.feedback.kind == "pair":
        gap = reward[0::2] - reward[1::2]
        wins = float((gap > 0).sum() + 0.5 * (gap == 0).sum())
        return HeldOut("accuracy", proportion(wins, len(held)), len(held), f"{what} of {len(held):,} held-out pairs")
    return HeldOut("none", None, len(held), "groups have no held-out measure yet")
