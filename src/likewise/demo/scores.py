"""How much better one model's answers truly are than another's, with intervals: the demo knows the true reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

from likewise.errors import BadFeedback

#: Standard normal quantile of a two-sided 95 % interval.
Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
        win_rate=wilson(wins + ties / 2, len(gains)),
        mean_a=mean_with_interval(rewards_a),
        mean_b=mean_with_interval(rewards_b),
        mean_gain=mean_with_interval(gains),
        wins=wins,
        ties=ties,
        losses=losses,
    )


def wilson(successes: float, trials: int) -> Estimate:
    """A share with Wilson's 95 % score interval; `successes` may hold halves."""
    share, z2 = successes / trials, Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return Estimate(share, max(centre - half, 0.0), min(centre + half, 1.0))


def mean_with_interval(values: Sequence[float]) -> Estimate:
    """A mean with its normal 95 % interval; a single value has an infinite one."""
    mean = fmean(values)
    half = Z95 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(mean, mean - half, mean + half)
