"""SFT: which completions count, and by what average."""

from __future__ import annotations

import numpy as np
import objective_oracle as oracle
import pytest
import torch
from objective_batches import random_label, tensor

from likewise.objectives import OBJECTIVES, LabelLogps

sft = OBJECTIVES["sft"]


@pytest.mark.parametrize("average", ["token_mean", "sum"])
@pytest.mark.parametrize("soft", [False, True])
def test_losses_agree_with_the_oracle(average, soft):
    batch = random_label(np.random.default_rng(2), 9, soft=soft)
    expected = oracle.sft_loss(batch.policy.numpy(), batch.length.numpy(), batch.desirable.numpy(), average)
    np.testing.assert_allclose(sft.loss(batch, {}, average=average).numpy(), expected, rtol=1e-12)


def test_thumbs_down_give_neither_loss_nor_gradient():
    policy = tensor([-6.0, -8.0]).requires_grad_()
    batch = LabelLogps(policy, None, torch.tensor([3, 4]), torch.tensor([True, False]))
    loss = sft.loss(batch)
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach(), [2.0, 0.0])
    np.testing.assert_allclose(policy.grad, [-1 / 3, 0.0])


def test_the_nll_per_token_is_over_all_liked_tokens_not_a_mean_of_means():
    batch = LabelLogps(tensor([-6.0, -20.0, -99.0]), None, torch.tensor([1, 9, 5]), torch.tensor([True, True, False]))
    assert sft.describe(batch, {}) == pytest.approx({"nll_per_token": 26 / 10})
