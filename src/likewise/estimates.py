"""Numbers with 95 % intervals: the few that several stages share."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    within 0 and 1; where that variance is 0 (the classes fully apart, say), Wilson's for the size of the smaller class.
    """
    ups, downs = score[positive], score[~positive]
    if not len(ups) or not len(downs):
        return None
    over_down = _share_below(ups, downs)
    under_up = 1 - _share_below(downs, ups)
    value, fewer = float(over_down.mean()), min(len(ups), len(downs))
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (over_down, under_up) if len(part) > 1)
    if fewer < 2 or variance == 0 or not 0 < value < 1:
        bound = proportion(value * fewer, fewer)
        return Estimate(value, bound.low, bound.high, len(score))
    logit, spread = math.log(value / (1 - value)), _Z * math.sqrt(variance) / (value * (1 - value))
    return Estimate(value, _expit(logit - spread), _expit(logit + spread), len(score))


def proportion(successes: float, n: int) -> Estimate:
    """A share with Wilson's interval; ties may enter as half successes."""
    p, z2 = successes / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """A mean with its normal interval, 1.96 standard errors either side; infinite for a single value."""
    sample = np.asarray(values, dtype=float)
    middle = float(sample.mean())
    half = _Z * float(sample.std(ddof=1)) / math.sqrt(len(sample)) if len(sample) > 1 else math.inf
    return Estimate(middle, middle - half, middle + half, len(sample))


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the share of the others below it, equal ones half."""
    others = np.sort(others)
    below = np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")
    return below / (2 * len(others))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
