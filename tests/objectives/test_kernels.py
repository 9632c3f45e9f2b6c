"""The shared arithmetic, where formulas are pushed to their edges."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from objective_batches import tensor

from likewise.objectives.kernels import finite_exp, log_mean_exp, logistic, per_token, thin, thin_pairs


def test_the_logistic_loss_keeps_its_tails():
    z = tensor([25.0, 800.0, -25.0, -800.0]).requires_grad_()
    loss = logistic(z)
    loss.sum().backward()
    tail = math.exp(-25)
    np.testing.assert_allclose(loss.detach(), [tail, 0.0, 25 + tail, 800.0], rtol=1e-10)
    # Here softplus with its usual threshold says exactly -1.
    np.testing.assert_allclose(z.grad + tensor([0, 0, 1, 1]), [-tail, 0.0, tail, 0.0], rtol=1e-4, atol=0)


def test_a_completion_without_tokens_keeps_its_sum_of_zero():
    assert per_token(tensor([0.0, -6.0]), torch.tensor([0, 3])).tolist() == [0.0, -2.0]


def test_a_mean_of_exponentials_is_weighted_and_does_not_overflow():
    value = log_mean_exp(tensor([1000.0, 1000.0 + math.log(3)]), tensor([1.0, 3.0]))
    assert float(value) == pytest.approx(1000 + math.log((1 + 3 * 3) / 4), rel=1e-12)


def test_an_infinite_exponential_becomes_the_largest_float():
    assert finite_exp(tensor(1.0)) == math.e
    assert finite_exp(tensor(1e6)) == sys.float_info.max


def test_thinning_takes_the_medians_of_equal_strata_in_any_row_order():
    value = tensor([5.0, 1.0, 3.0, 0.0, 4.0, 2.0])
    assert thin(value, torch.ones(6).double(), 3)[0].tolist() == [0.0, 2.0, 4.0]
    assert thin(value, torch.ones(6).double(), 6)[0] is value
    # Nearly all the mass lies on 5, so every stratum shows it.
    assert (
        thin(tensor([*range(5), 5.0, *range(6, 12)]), tensor([0.1] * 5 + [99.0] + [0.1] * 6), 10)[0].tolist()
        == [5] * 10
    )


@pytest.mark.parametrize("n, m", [(1, 5000), (5000, 1), (70, 70), (40, 5000), (3, 4), (5000, 5000)])
def test_thinned_classes_form_no_more_pairs_than_allowed(n, m):
    up, down = ((torch.randn(k).double(), torch.ones(k).double()) for k in (n, m))
    (won, won_mass), (lost, lost_mass) = thin_pairs(up, down, pairs=3600)
    assert len(won) * len(lost) <= 3600
    assert len(won) * len(lost) >= min(n * m, 3540)
    assert (len(won), len(lost)) == (len(won_mass), len(lost_mass))
