"""Agreement of implicit rewards with held-out feedback, with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the count it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} (95 % interval {self.low:.3f} to {self.high:.3f}, n = {self.n:,})"


def auc(score: np.ndarray, positive: np.ndarray) -> Estimate | None:
    """Probability that a positive scores above a negative, ties half; None where one class is missing.

    Shapes: both [n]; `positive` is boolean. The interval is DeLong's variance on the logit scale, so that it stays
    within 0 and 1; where all positives stand above all negatives (or below), it is the exact bound for their number.
    """
    ups, downs = score[positive], score[~positive]
    m, n = len(ups), len(downs)
    if not m or not n:
        return None
    ranks = _ranks(np.concatenate([ups, downs]))
    value = float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
    above_down = (ranks[:m] - _ranks(ups)) / n  # share of downs below each up
    below_up = 1 - (ranks[m:] - _ranks(downs)) / m  # share of ups above each down
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (above_down, below_up) if len(part) > 1)
    if not 0 < value < 1 or variance == 0 or min(m, n) < 2:
        bound = proportion(value * min(m, n), min(m, n))
        return Estimate(value, bound.low, bound.high, m + n)
    logit, spread = math.log(value / (1 - value)), _Z * math.sqrt(variance) / (value * (1 - value))
    return Estimate(value, _expit(logit - spread), _expit(logit + spread), m + n)


def proportion(successes: float, n: int) -> Estimate:
    """A share with Wilson's interval; ties may enter as half successes."""
    p, z2 = successes / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean rank, [n]."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
