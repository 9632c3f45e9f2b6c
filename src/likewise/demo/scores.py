"""How much better one model's answers truly are than another's, with intervals: the demo knows the true reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from likewise.errors import BadFeedback
from likewise.estimates import Estimate, mean, proportion


@dataclass(frozen=True)
class TrueWinRate:
    """A against B on the same prompts: `win_rate` counts a tie as half; the means are true rewards."""

    win_rate: Estimate
    mean_a: Estimate
    mean_b: Estimate
    mean_gain: Estimate
    wins: int
    ties: int
    losses: int


def true_win_rate(rewards_a: Sequence[float], rewards_b: Sequence[float]) -> TrueWinRate:
    """How often A's answer has the higher true reward, paired by prompt.

    The win rate (wins plus half the ties) has Wilson's score interval with the number of prompts as trials: it keeps a
    width at 0 and 1, and ties only make it wider than needed. Means have the normal interval, 1.96 standard errors
    either side; the gain's is taken over the paired differences.
    Raises: BadFeedback if there are no prompts or the two sides differ in number.
    """
    if len(rewards_a) != len(rewards_b) or not len(rewards_a):
        raise BadFeedback(f"a win rate needs the same prompts on both sides; got {len(rewards_a)} and {len(rewards_b)}")
    gains = [a - b for a, b in zip(rewards_a, rewards_b, strict=True)]
    wins, losses = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    ties = len(gains) - wins - losses
    return TrueWinRate(
        win_rate=proportion(wins + ties / 2, len(gains)),
        mean_a=mean(rewards_a),
        mean_b=mean(rewards_b),
        mean_gain=mean(gains),
        wins=wins,
        ties=ties,
        losses=losses,
    )
