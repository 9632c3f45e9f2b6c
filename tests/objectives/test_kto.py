"""KTO: agreement with the oracle, the baseline's rules, and the traps around its clamp and sign."""

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

from likewise.objectives import OBJECTIVES, LabelLogps, add_sums

kto = OBJECTIVES["kto"]


def rows(ratios, desirable, mismatched=None):
    """Rows with these log-ratios; `mismatched` has their mismatched log-ratios, NaN for none."""
    ratios = tensor(ratios)
    zeros = torch.zeros_like(ratios)
    drawn = None if mismatched is None else tensor(mismatched)
    return LabelLogps(
        ratios,
        zeros,
        zeros + 1,
        torch.tensor(desirable),
        mismatched_policy=drawn,
        mismatched_reference=None if drawn is None else torch.where(drawn.isnan(), torch.nan, 0.0).double(),
    )


def after(batch, state=None):
    state = kto.init() if state is None else state
    return kto.update(state, kto.observe(batch, state))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), spread=st.sampled_from([0.1, 5.0, 1e4]), soft=st.booleans(), beta=st.floats(0.01, 2))
def test_losses_and_baselines_over_several_steps_agree_with_the_oracle(seed, spread, soft, beta):
    rng, state = np.random.default_rng(seed), kto.init()
    options = {"beta": beta, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    for _ in range(3):
        batch = random_label(rng, int(rng.integers(1, 9)), spread=spread, soft=soft)
        state = kto.update(state, kto.observe(batch, state, **options), **options)
        baseline, raw, stderr = oracle.kto_baseline(batch.mismatched_policy, batch.mismatched_reference)
        columns = [getattr(batch, name).numpy() for name in ("policy", "reference", "desirable")]
        expected = oracle.kto_loss(*columns, beta, 1.3, 0.7, baseline)
        np.testing.assert_allclose(kto.loss(batch, state, **options).numpy(), expected, rtol=1e-9, atol=1e-9)
        described = {"baseline": baseline}
        if not batch.mismatched_policy.isnan().all():
            described["baseline_raw"] = raw
        if stderr is not None:
            described["baseline_stderr"] = stderr
        assert kto.describe(batch, state, **options) == pytest.approx(described, rel=1e-9, abs=1e-9)


def test_the_gradient_is_that_of_a_constant_baseline():
    batch = random_label(np.random.default_rng(1), 12)
    policy = batch.policy.clone().requires_grad_()
    batch = replace(batch, policy=policy, mismatched_policy=policy + 3, mismatched_reference=batch.reference)
    state = after(batch)
    assert state["baseline"] > 0.5
    kto.loss(batch, state).sum().backward()
    fixed = [batch.reference.numpy(), batch.desirable.numpy(), 0.1, 1.0, 1.0, float(state["baseline"])]
    expected = oracle.slope(lambda lp: oracle.kto_loss(lp, *fixed), policy.detach().numpy())
    np.testing.assert_allclose(policy.grad.numpy(), expected, rtol=1e-7, atol=1e-10)


def test_a_completion_above_the_baseline_gains_if_liked_and_loses_if_not():
    batch = rows([30.0, 30.0, 10.0, 10.0], [True, False, True, False], [20.0] * 4)
    one, minus_one = 1 / (1 + math.e**-1), 1 / (1 + math.e)  # sigmoid(0.1 * (30 - 20)) and its mirror
    expected = [1 - one, 1 - minus_one, 1 - minus_one, 1 - one]
    np.testing.assert_allclose(kto.loss(batch, after(batch)).numpy(), expected, rtol=1e-12)


def test_the_baseline_is_clamped_after_the_mean_over_workers_not_before():
    workers = [rows([0.0], [True], [-3.0]), rows([0.0], [True], [1.0])]
    state = kto.update(kto.init(), add_sums(*[kto.observe(part, kto.init()) for part in workers]))
    assert (float(state["baseline_raw"]), float(state["baseline"])) == (-1.0, 0.0)  # clamped first: 0.5


def test_a_baseline_forgets_the_steps_before():
    state = after(rows([0.0], [True], [8.0]))
    assert float(state["baseline"]) == 8.0
    assert float(after(rows([0.0], [True], [2.0]), state)["baseline"]) == 2.0


@pytest.mark.parametrize("mismatched", [None, [math.nan, math.nan]])
def test_a_step_without_mismatches_has_baseline_zero(mismatched):
    batch = rows([4.0, -4.0], [True, False], mismatched)
    state = after(batch, after(rows([0.0], [True], [8.0])))
    assert kto.describe(batch, state) == {"baseline": 0.0}


def test_rows_that_drew_no_mismatch_do_not_count():
    state = after(rows([0.0, 0.0, 0.0], [True, True, False], [4.0, math.nan, 2.0]))
    assert float(state["baseline"]) == 3.0
    assert kto.describe(rows([0.0], [True]), state)["baseline_stderr"] == pytest.approx(math.sqrt(2) / math.sqrt(2))


def test_a_policy_that_is_not_a_number_is_no_missing_mismatch():
    broken = replace(rows([0.0], [True], [1.0]), mismatched_policy=tensor([math.nan]))
    assert after(broken)["baseline_raw"].isnan()


def test_the_standard_error_survives_a_mean_far_from_zero():
    state = kto.init()
    for _ in range(2):  # the second step measures squares from the first one's baseline
        state = after(rows([0.0] * 3, [True] * 3, [1e4 - 1e-3, 1e4, 1e4 + 1e-3]), state)
    assert float(state["baseline_stderr"]) == pytest.approx(1e-3 / math.sqrt(3), rel=1e-8)


def test_the_baseline_counts_each_mismatch_once_whatever_its_weight():
    batch = rows([0.0, 0.0], [True, False], [1.0, 3.0])
    assert float(after(replace(batch, weight=tensor([9.0, 1.0])))["baseline"]) == 2.0


def test_observing_comes_before_the_losses_of_the_same_step():
    assert kto.observe_before
    assert not OBJECTIVES["bco"].observe_before
