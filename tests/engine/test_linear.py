"""The faster float32 product gives the numbers of the plain one, and steps aside where it does not belong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from likewise.engine import linear
from likewise.engine.linear import FastLinear, times_transposed, use_fast_linear, use_plain_linear

here = pytest.mark.skipif(not linear.helps_here(), reason="torch's default product is as fast on this processor")


@here
@pytest.mark.parametrize("shape", [(1, 37, 24), (5, 24), (2, 3, 24), (0, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(shape, bias):
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias)
    fast = copy.deepcopy(plain)
    use_fast_linear(fast)
    assert type(fast) is FastLinear
    x = torch.randn(shape, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    up = torch.randn(*shape[:-1], 40)
    fast(x).backward(up)
    truth = plain.double()
    truth(exact).backward(up.double())
    torch.testing.assert_close(fast(x).double(), truth(exact), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(fast.parameters(), truth.parameters()):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=1e-5, rtol=1e-5)


@here
def test_the_same_product_twice_is_the_same_bits():
    x, weight = torch.randn(300, 64), torch.randn(90, 64)
    first = times_transposed(x, weight)
    assert all(torch.equal(times_transposed(x, weight), first) for _ in range(10))


@here
def test_transposed_views_and_what_is_not_finite_pass_through():
    left, right = torch.randn(64, 30).t(), torch.randn(64, 20).t()
    torch.testing.assert_close(times_transposed(left, right), left @ right.t(), atol=1e-4, rtol=1e-4)
    x = torch.randn(4, 8)
    x[2, 3] = float("nan")
    assert times_transposed(x, torch.randn(5, 8)).isnan().any(dim=1).tolist() == [False, False, True, False]


def test_other_precisions_and_autocast_take_the_plain_way():
    layer = nn.Linear(8, 4)
    use_fast_linear(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(3, 8)).dtype == torch.bfloat16
    x = torch.randn(3, 8, dtype=torch.float64)
    torch.testing.assert_close(layer.double()(x), F.linear(x, layer.weight, layer.bias))


def test_a_model_handed_out_has_plain_layers_again():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2)))
    use_fast_linear(model)
    use_plain_linear(model)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Linear)] == [nn.Linear, nn.Linear]


def test_the_plain_way_is_there_where_the_fast_one_is_not(monkeypatch):
    monkeypatch.setattr(linear, "helps_here", lambda: False)
    x, weight = torch.randn(3, 8), torch.randn(5, 8)
    assert torch.equal(times_transposed(x, weight), F.linear(x, weight))
    layer = nn.Linear(8, 5)
    use_fast_linear(layer)
    assert type(layer) is nn.Linear
