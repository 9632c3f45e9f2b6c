"""The typed batches: what they refuse, and how rows are selected and joined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from objective_batches import MAKERS, random_label, random_pair

from likewise.objectives import GroupLogps, LabelLogps, PairLogps, concat

row = torch.zeros(3)


@pytest.mark.parametrize("bad", [torch.zeros(3, 1), torch.zeros(2), torch.zeros(())])
@pytest.mark.parametrize("position", range(4))
def test_one_shape_throughout(bad, position):
    values = [row, row, row, row]
    values[position] = bad
    with pytest.raises(ValueError, match=r"LabelLogps needs one shape \[B\] throughout"):
        LabelLogps(*values)


def test_no_second_dimension_even_if_all_agree():
    with pytest.raises(ValueError, match="one shape"):
        GroupLogps(*[torch.zeros(2, 2)] * 5)


def test_positions_follow_the_contract():
    values = [torch.full((1,), float(i)) for i in range(6)]
    pair = PairLogps(*values)
    assert (pair.chosen_log_ratio.item(), pair.rejected_log_ratio.item()) == (0 - 2, 1 - 3)
    assert (pair.length_chosen.item(), pair.length_rejected.item()) == (4, 5)
    label = LabelLogps(*values[:5])
    assert (label.log_ratio.item(), label.length.item(), label.desirable.item(), label.weight.item()) == (-1, 2, 3, 4)


def test_what_is_not_a_tensor_is_named():
    with pytest.raises(ValueError, match=r"LabelLogps.desirable must be a tensor \[B\]; got list"):
        LabelLogps(row, row, row, [True, False, True])
    with pytest.raises(ValueError, match=r"LabelLogps.policy must be a tensor \[B\]; got NoneType"):
        LabelLogps(None, row, row, row)


def test_both_sides_of_a_reference_or_of_a_mismatch_come_together():
    with pytest.raises(ValueError, match="fill both 'reference_chosen' and 'reference_rejected'"):
        PairLogps(row, row, row, None, row, row)
    with pytest.raises(ValueError, match="fill both 'mismatched_policy' and 'mismatched_reference'"):
        LabelLogps(row, row, row, row, mismatched_policy=row)


def test_a_log_ratio_without_reference_is_an_error():
    for batch, name in [
        (LabelLogps(row, None, row, row), "log_ratio"),
        (PairLogps(row, row, None, None, row, row), "chosen_log_ratio"),
        (GroupLogps(row, None, row, row, row), "log_ratio"),
    ]:
        with pytest.raises(ValueError, match="needs reference log-probs"):
            getattr(batch, name)


@pytest.mark.parametrize("kind", MAKERS)
def test_cutting_and_joining_gives_the_batch_back(kind):
    batch = MAKERS[kind](np.random.default_rng(0), 7)
    joined = concat([batch.select(slice(0, 3)), batch.select([]), batch.select(torch.arange(3, 7))])
    assert len(joined) == 7
    for name, value in vars(batch).items():
        torch.testing.assert_close(getattr(joined, name), value, rtol=0, atol=0, equal_nan=True)


def test_rows_are_selected_by_position_or_by_mask():
    batch = random_label(np.random.default_rng(1), 4)
    by_position = batch.select([2, 0])
    assert torch.equal(by_position.policy, torch.stack([batch.policy[2], batch.policy[0]]))
    by_mask = batch.select(batch.desirable)
    assert len(by_mask) == int(batch.desirable.sum())
    assert by_mask.desirable.all()


def test_a_field_missing_in_one_of_the_parts_cannot_be_joined():
    full = random_pair(np.random.default_rng(2), 2)
    with pytest.raises(ValueError, match="'rating_chosen' is filled in 1 of 2 batches"):
        concat([full, PairLogps(*[torch.zeros(1)] * 6)])
    with pytest.raises(ValueError, match="at least one batch"):
        concat([])


def test_detach_keeps_the_numbers_and_drops_the_gradient():
    policy = torch.ones(3, requires_grad=True)
    batch = LabelLogps(policy * 2, row, row, row).detach()
    assert not batch.policy.requires_grad
    assert torch.equal(batch.policy, torch.full((3,), 2.0))
