"""DPO, IPO and NCA: agreement with the oracle and with their own identities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import objective_oracle as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_batches import random_pair, tensor

from likewise.objectives import OBJECTIVES, PairLogps

dpo, ipo, nca = OBJECTIVES["dpo"], OBJECTIVES["ipo"], OBJECTIVES["nca"]

SIDES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
LENGTHS = ("length_chosen", "length_rejected")
CASES = [
    (dpo, {"beta": 0.1}, lambda c, n, beta: oracle.dpo_loss(*c, beta)),
    (dpo, {"beta": 1.5}, lambda c, n, beta: oracle.dpo_loss(*c, beta)),
    (ipo, {"tau": 0.1, "average": "sum"}, lambda c, n, tau, average: oracle.ipo_loss(*c, *n, tau, average)),
    (ipo, {"tau": 0.3, "average": "token_mean"}, lambda c, n, tau, average: oracle.ipo_loss(*c, *n, tau, average)),
    (nca, {"beta": 0.01}, lambda c, n, beta: oracle.nca_loss(*c, beta)),
    (nca, {"beta": 0.7}, lambda c, n, beta: oracle.nca_loss(*c, beta)),
]
cases = pytest.mark.parametrize("objective, options, formula", CASES, ids=lambda v: getattr(v, "name", None))


def pairs(won, lost):
    """Pairs with these log-ratios."""
    zeros = torch.zeros(len(won), dtype=torch.float64)
    return PairLogps(tensor(won), tensor(lost), zeros, zeros, zeros + 1, zeros + 1)


def swapped(batch):
    return PairLogps(
        *(getattr(batch, name) for name in ("policy_rejected", "policy_chosen", "reference_rejected")),
        *(getattr(batch, name) for name in ("reference_chosen", "length_rejected", "length_chosen")),
    )


@cases
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.1, 5.0, 1e4]))
def test_losses_agree_with_the_oracle(objective, options, formula, seed, spread):
    batch = random_pair(np.random.default_rng(seed), 7, spread=spread)
    columns, lengths = ([getattr(batch, name).numpy() for name in names] for names in (SIDES, LENGTHS))
    expected = formula(columns, lengths, **options)
    np.testing.assert_allclose(objective.loss(batch, {}, **options).numpy(), expected, rtol=1e-9, atol=1e-9)


@cases
def test_gradients_agree_with_finite_differences_of_the_oracle(objective, options, formula):
    batch = random_pair(np.random.default_rng(4), 7)
    columns, lengths = ([getattr(batch, name).numpy() for name in names] for names in (SIDES, LENGTHS))
    for side in (0, 1):
        policy = tensor(columns[side]).requires_grad_()
        objective.loss(replace(batch, **{SIDES[side]: policy}), {}, **options).sum().backward()

        def of_side(x, side=side):
            return formula([*columns[:side], x, *columns[side + 1 :]], lengths, **options)

        expected = oracle.slope(of_side, columns[side])
        np.testing.assert_allclose(policy.grad.numpy(), expected, rtol=1e-6, atol=1e-8)


@settings(deadline=None, max_examples=30)
@given(won=st.floats(-1e4, 1e4), lost=st.floats(-1e4, 1e4))
def test_swapping_the_sides_turns_the_margin_round(won, lost):
    batch = pairs([won], [lost])
    z = 0.1 * (won - lost)
    # log sigmoid(z) - log sigmoid(-z) = z
    assert float(dpo.loss(swapped(batch)) - dpo.loss(batch)) == pytest.approx(z, rel=1e-9, abs=1e-9)
    # (-m - t)^2 - (m - t)^2 = 4 m t
    assert float(ipo.loss(swapped(batch)) - ipo.loss(batch)) == pytest.approx(20 * (won - lost), rel=1e-7, abs=1e-6)


def test_a_won_pair_costs_dpo_less_than_a_lost_one():
    loss = dpo.loss(pairs([10.0, -10.0], [-10.0, 10.0]))
    np.testing.assert_allclose(loss.numpy(), [math.log1p(math.exp(-2)), math.log1p(math.exp(2))], rtol=1e-12)


def test_ipo_is_zero_at_its_target_and_pushes_back_beyond_it():
    batch = pairs([3.0, 8.0], [-2.0, -2.0])  # margins 5 and 10, target 5
    policy = batch.policy_chosen.clone().requires_grad_()
    loss = ipo.loss(replace(batch, policy_chosen=policy))
    (slopes,) = torch.autograd.grad(loss.sum(), policy)
    assert loss.tolist() == [0.0, 25.0]
    assert slopes.tolist() == [0.0, 10.0]


def test_ipo_by_token_divides_each_side_by_its_own_length():
    batch = replace(pairs([8.0], [6.0]), length_chosen=torch.tensor([2]), length_rejected=torch.tensor([3]))
    assert float(ipo.loss(batch, average="token_mean")) == pytest.approx((8 / 2 - 6 / 3 - 5) ** 2)
    assert float(ipo.loss(batch)) == pytest.approx((8 - 6 - 5) ** 2)


def test_nca_is_least_where_the_chosen_reward_is_log_two():
    chosen = torch.tensor([math.log(2)], dtype=torch.float64, requires_grad=True)
    nca.loss(replace(pairs([0.0], [0.0]), policy_chosen=chosen), beta=1.0).backward()
    assert float(chosen.grad) == pytest.approx(0, abs=1e-15)


def test_accuracy_counts_pairs_ahead_and_ties_half():
    batch = pairs([2.0, 1.0, -1.0, 5.0], [1.0, 1.0, 1.0, 0.0])
    for objective in (dpo, ipo, nca):
        assert objective.describe(batch, {})["accuracy"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert ipo.describe(batch, {}) == pytest.approx(
        {"accuracy": 0.625, "ranking_accuracy": 0.625, "margin": 1.0, "target": 5.0}
    )


def test_ranking_accuracy_looks_at_the_policy_alone():
    batch = replace(pairs([-5.0, -4.0], [-4.0, -5.0]), reference_chosen=tensor([-7.0, -1.0]))
    # Log-ratios: 2 against -4 and -3 against -5, both ahead; log-probs: -5 against -4 and -4 against -5.
    assert dpo.describe(batch, {}) == {"accuracy": 1.0, "ranking_accuracy": 0.5}
