"""BCO and BCE: agreement with the oracle, the shift's rules, and the bound on DPO."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import objective_oracle as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_batches import random_label, tensor

from likewise.objectives import OBJECTIVES, LabelLogps, PairLogps, add_sums

bco, bce, dpo = OBJECTIVES["bco"], OBJECTIVES["bce"], OBJECTIVES["dpo"]
seeds = st.integers(0, 2**31)


def labels(ratios, desirable, weight=None):
    """Rows with these log-ratios."""
    ratios = tensor(ratios)
    return LabelLogps(
        policy=ratios - 10,
        reference=torch.full_like(ratios, -10),
        length=torch.ones(len(ratios)),
        desirable=torch.tensor(desirable),
        weight=None if weight is None else tensor(weight),
    )


def shift_state(up, down):
    return {
        "desirable_mean": tensor(up),
        "desirable_seen": tensor(1.0),
        "undesirable_mean": tensor(down),
        "undesirable_seen": tensor(1.0),
    }


def after(batch, state, **options):
    return bco.update(state, bco.observe(batch, state, **options), **options)


def shift_of(state):
    return bco.describe(labels([0.0], [True]), state)["shift"]


@settings(deadline=None, max_examples=40)
@given(
    seed=seeds,
    spread=st.sampled_from([0.1, 5.0, 1e4]),
    soft=st.booleans(),
    beta=st.floats(0.01, 2),
    rate=st.floats(0.01, 1),
)
def test_losses_and_states_over_several_steps_agree_with_the_oracle(seed, spread, soft, beta, rate):
    rng, shift, state = np.random.default_rng(seed), oracle.BcoShift(rate), bco.init()
    options = {"beta": beta, "shift_rate": rate}
    for _ in range(4):
        batch = random_label(rng, int(rng.integers(1, 9)), spread=spread, soft=soft)
        columns = [getattr(batch, name).numpy() for name in ("policy", "reference", "desirable")]
        expected = oracle.bco_loss(*columns, beta, shift.delta)
        np.testing.assert_allclose(bco.loss(batch, state, **options).numpy(), expected, rtol=1e-9, atol=1e-9)
        shift.step(*columns, batch.weight.numpy(), beta)
        state = after(batch, state, **options)
        assert float(state["desirable_mean"]) == pytest.approx(shift.up or 0.0, rel=1e-9, abs=1e-9)
        assert float(state["undesirable_mean"]) == pytest.approx(shift.down or 0.0, rel=1e-9, abs=1e-9)
        assert bco.describe(batch, state, **options)["shift"] == pytest.approx(shift.delta, rel=1e-9, abs=1e-9)


def test_the_gradient_is_that_of_a_constant_shift():
    batch = random_label(np.random.default_rng(0), 12)
    policy = batch.policy.clone().requires_grad_()
    batch = replace(batch, policy=policy)
    # The shift comes from the very rows that are differentiated: a leak through it would show.
    state = after(batch, bco.init())
    bco.loss(batch, state).sum().backward()
    delta = shift_of(state)
    fixed = [batch.reference.numpy(), batch.desirable.numpy(), 0.1, delta]
    expected = oracle.slope(lambda lp: oracle.bco_loss(lp, *fixed), policy.detach().numpy())
    assert abs(delta) > 0.01
    np.testing.assert_allclose(policy.grad.numpy(), expected, rtol=1e-7, atol=1e-10)


def test_the_shift_is_half_way_between_class_means_not_the_pooled_mean():
    batch = labels([10.0] * 9 + [-10.0], [True] * 9 + [False])
    # Class mean rewards are 1 and -1 at beta 0.1; all ten rows pooled would give 0.8.
    assert shift_of(after(batch, bco.init())) == pytest.approx(0.0, abs=1e-15)


def test_the_first_step_sets_the_means_and_later_steps_move_them():
    state = after(labels([10.0, -30.0], [True, False]), bco.init())
    assert shift_of(state) == pytest.approx((1 - 3) / 2)
    state = after(labels([20.0, 0.0], [True, False]), state)
    assert shift_of(state) == pytest.approx(((0.9 * 1 + 0.1 * 2) + (0.9 * -3 + 0.1 * 0)) / 2)


def test_a_class_not_yet_seen_counts_as_zero_and_one_not_seen_in_a_step_stays():
    state = after(labels([10.0], [True]), bco.init())
    assert shift_of(state) == pytest.approx(0.5)
    state = after(labels([-30.0], [False]), state)  # sets the new class, whatever the other has seen
    assert shift_of(state) == pytest.approx((1 - 3) / 2)


def test_the_shift_is_not_clamped():
    assert shift_of(after(labels([-40.0, -80.0], [True, False]), bco.init())) == pytest.approx(-6.0)


def test_updating_inside_micro_batches_would_be_another_shift():
    start = shift_state(1.0, -1.0)
    parts = [labels([20.0, 0.0], [True, False]), labels([40.0, 20.0], [True, False])]
    sums = add_sums(*[bco.observe(part, start) for part in parts])
    once = shift_of(bco.update(start, sums))
    twice = shift_of(after(parts[1], after(parts[0], start)))
    # Step means are 3 and 1, so one move of a tenth: 1.2 and -0.8.
    assert once == pytest.approx(0.2)
    assert twice != pytest.approx(0.2, abs=0.05)


def test_losing_the_state_would_change_the_loss():
    batch = labels([10.0, -10.0], [True, False])
    kept = bco.loss(batch, shift_state(4.0, 2.0))
    expected = [math.log1p(math.exp(-(1 - 3))), math.log1p(math.exp(-1 - 3))]
    np.testing.assert_allclose(kept.numpy(), expected, rtol=1e-12)
    assert not torch.allclose(kept, bco.loss(batch, bco.init()))


def test_a_row_of_weight_two_equals_two_rows():
    heavy = labels([10.0, 30.0, -5.0], [True, True, False], weight=[2.0, 1.0, 1.0])
    twice = labels([10.0, 10.0, 30.0, -5.0], [True, True, True, False])
    torch.testing.assert_close(after(heavy, bco.init()), after(twice, bco.init()), rtol=1e-14, atol=1e-14)
    assert bco.describe(heavy, shift_state(1, 0)) == pytest.approx(bco.describe(twice, shift_state(1, 0)))


@settings(deadline=None, max_examples=25)
@given(seed=seeds, spread=st.sampled_from([1.0, 1e4]), beta=st.floats(0.01, 2))
def test_bce_is_bco_without_shift(seed, spread, beta):
    batch = random_label(np.random.default_rng(seed), 6, spread=spread)
    assert torch.equal(bce.loss(batch, {}, beta=beta), bco.loss(batch, bco.init(), beta=beta))
    assert bce.describe(batch, {}, beta=beta) == bco.describe(batch, bco.init(), beta=beta)


@settings(deadline=None, max_examples=50)
@given(won=st.floats(-500, 500), lost=st.floats(-500, 500), delta=st.floats(-50, 50))
def test_bco_on_a_pair_bounds_dpo_from_above_for_every_shift(won, lost, delta):
    pair = PairLogps(*map(tensor, ([won], [lost], [0.0], [0.0])), torch.ones(1), torch.ones(1))
    both = bco.loss(labels([won, lost], [True, False]), shift_state(delta, delta))
    assert float(both.sum() - dpo.loss(pair)) >= -1e-12


@settings(deadline=None, max_examples=50)
@given(won=st.floats(-500, 500), lost=st.floats(-500, 500), delta=st.floats(-50, 50))
def test_the_bound_gap_of_a_pair_is_the_difference_of_the_losses_and_never_negative(won, lost, delta):
    batch = labels([won, lost], [True, False])
    gap = bco.describe(batch, shift_state(delta, delta), beta=0.5)["bound_gap"]
    assert gap >= 0
    assert gap == pytest.approx(oracle.bce_minus_dpo(won / 2, lost / 2, delta), rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(seed=seeds, ups=st.integers(1, 8), downs=st.integers(1, 8), spread=st.sampled_from([1.0, 30.0, 600.0]))
def test_error_term_and_bound_gap_are_means_over_all_pairs(seed, ups, downs, spread):
    rng = np.random.default_rng(seed)
    up, down, delta = spread * rng.standard_normal(ups), spread * rng.standard_normal(downs), rng.normal()
    batch = labels([*up, *down], [True] * ups + [False] * downs)
    found = bco.describe(batch, shift_state(delta, delta), beta=1.0)
    # Log-ratios pass through a sum with the reference, so the oracle gets what the batch holds.
    held = batch.log_ratio.numpy()
    error, gap = oracle.bco_error_and_gap(held[:ups], held[ups:], delta)
    assert found["error_term"] == pytest.approx(min(error, 1.7976931348623157e308), rel=1e-9)
    assert found["bound_gap"] == pytest.approx(gap, rel=1e-9, abs=1e-12)
    assert found["desirable_reward"] == pytest.approx(held[:ups].mean(), rel=1e-9, abs=1e-9)
    assert found["undesirable_reward"] == pytest.approx(held[ups:].mean(), rel=1e-9, abs=1e-9)


def test_the_error_term_is_smallest_half_way_between_the_rewards_of_a_pair():
    batch = labels([30.0, -10.0], [True, False])  # rewards 3 and -1
    errors = {delta: bce_error(batch, delta) for delta in (0.5, 0.9, 1.0, 1.1, 1.5)}
    assert min(errors, key=errors.get) == 1.0
    assert errors[1.0] == pytest.approx(2 * math.exp(-(3 + 1) / 2))


def bce_error(batch, delta):
    return bco.describe(batch, shift_state(delta, delta))["error_term"]


def test_a_step_of_many_pairs_estimates_the_gap_from_a_capped_number_of_them():
    rng = np.random.default_rng(3)
    up, down = rng.normal(2, 1, 3000), rng.normal(-1, 2, 1500)
    batch = labels([*up, *down], [True] * 3000 + [False] * 1500)
    error = up[:, None] - down[None, :]
    difference = np.logaddexp(0, -up)[:, None] + np.logaddexp(0, down)[None, :] - np.logaddexp(0, -error)
    found = bco.describe(batch, shift_state(0, 0), beta=1.0)
    assert found["bound_gap"] == pytest.approx(difference.mean(), rel=2e-3)
    assert found["error_term"] == pytest.approx(np.exp(-up).mean() + np.exp(down).mean(), rel=1e-9)
    assert bco.describe(batch, shift_state(0, 0), beta=1.0) == found


def test_with_one_class_there_is_no_pair_to_describe():
    found = bco.describe(labels([1.0, 2.0], [True, True]), bco.init())
    assert found == pytest.approx({"shift": 0.0, "desirable_reward": 0.15})


def test_a_soft_label_belongs_to_both_classes_by_its_share():
    sums = bco.observe(labels([10.0], [0.25]), bco.init())
    assert [float(value) for value in sums["desirable"]] == pytest.approx([0.25, 0.25])
    assert [float(value) for value in sums["undesirable"]] == pytest.approx([0.75, 0.75])
