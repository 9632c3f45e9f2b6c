"""The formulas of the objectives in float64 NumPy and in 60-digit decimals, written from the papers.

Nothing here comes from likewise: where the two agree, both have read the formula alike.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np


def softplus_of_minus(z):
    """-log sigmoid(z) = log(1 + e^-z)."""
    return np.logaddexp(0.0, -np.asarray(z, dtype=np.float64))


def sigmoid(z):
    return np.exp(-softplus_of_minus(z))


def bco_loss(policy, reference, desirable, beta, delta):
    out = []
    for lp, ref, up in zip(policy, reference, desirable, strict=True):
        reward = beta * (lp - ref)
        out.append(up * softplus_of_minus(reward - delta) + (1 - up) * softplus_of_minus(-(reward - delta)))
    return np.array(out)


class BcoShift:
    """Class means over steps. `step` sees all examples of one optimizer step at once."""

    def __init__(self, rate):
        self.rate, self.up, self.down = rate, None, None

    @property
    def delta(self):
        return ((self.up or 0.0) + (self.down or 0.0)) / 2

    def step(self, policy, reference, desirable, weight, beta):
        rewards = beta * (np.asarray(policy, np.float64) - np.asarray(reference, np.float64))
        self.up = self._moved(self.up, rewards, weight * desirable)
        self.down = self._moved(self.down, rewards, weight * (1 - desirable))

    def _moved(self, old, rewards, mass):
        if mass.sum() == 0:
            return old
        mean = float(np.average(rewards, weights=mass))
        return mean if old is None else (1 - self.rate) * old + self.rate * mean


def bco_error_and_gap(up_rewards, down_rewards, delta):
    """Mean over all pairs of E and of BCE bound - DPO loss, by the definitions, in 60 digits."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**9, -(10**9)
        delta = Decimal(float(delta))
        errors, gaps = [], []
        for won in map(Decimal, map(float, up_rewards)):
            for lost in map(Decimal, map(float, down_rewards)):
                error = (-(won - delta)).exp() + (lost - delta).exp()
                errors.append(error)
                gaps.append((1 + error / (1 + (-(won - lost)).exp())).ln())
        return float(sum(errors) / len(errors)), float(sum(gaps) / len(gaps))


def bce_minus_dpo(won, lost, delta):
    """The same gap as a difference of losses: BCE of both sides minus the DPO loss of the pair, 60 digits."""
    with localcontext() as context:
        context.prec, context.Emax, context.Emin = 60, 10**9, -(10**9)
        won, lost, delta = (Decimal(float(value)) for value in (won, lost, delta))

        def loss(z):
            return (1 + (-z).exp()).ln()

        return float(loss(won - delta) + loss(-(lost - delta)) - loss(won - lost))


def kto_loss(policy, reference, desirable, beta, desirable_weight, undesirable_weight, z0):
    out = []
    for lp, ref, up in zip(policy, reference, desirable, strict=True):
        h = lp - ref
        gain = desirable_weight * (1 - sigmoid(beta * (h - z0)))
        loss = undesirable_weight * (1 - sigmoid(beta * (z0 - h)))
        out.append(up * gain + (1 - up) * loss)
    return np.array(out)


def kto_baseline(mismatched_policy, mismatched_reference):
    """z0, the mean before the clamp, and its standard error, from the mismatches of a whole step."""
    ratios = np.asarray(mismatched_policy, np.float64) - np.asarray(mismatched_reference, np.float64)
    ratios = ratios[~np.isnan(ratios)]
    raw = ratios.mean() if len(ratios) else 0.0
    stderr = ratios.std(ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else None
    return max(0.0, raw), raw, stderr


def dpo_loss(pw, pl, rw, rl, beta):
    return softplus_of_minus(beta * ((pw - rw) - (pl - rl)))


def ipo_loss(pw, pl, rw, rl, nw, nl, tau, average):
    hw, hl = pw - rw, pl - rl
    if average == "token_mean":
        hw, hl = hw / nw, hl / nl
    return (hw - hl - 1 / (2 * tau)) ** 2


def nca_loss(pw, pl, rw, rl, beta):
    won, lost = beta * (pw - rw), beta * (pl - rl)
    return softplus_of_minus(won) + 0.5 * softplus_of_minus(-won) + 0.5 * softplus_of_minus(-lost)


def sft_loss(policy, length, desirable, average):
    return -(desirable * (policy / length if average == "token_mean" else policy))


def slope(function, x, step=1e-5):
    """Central differences of each output row in its own input row."""
    return (function(x + step) - function(x - step)) / (2 * step)
