"""Laws that every objective obeys; an objective that joins the table is tested here without a new line."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_batches import POLICY, REFERENCE, random_batch

from likewise.objectives import OBJECTIVES, add_sums

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
with_reference = pytest.mark.parametrize(
    "objective", [o for o in OBJECTIVES.values() if "reference" in o.needs], ids=lambda o: o.name
)
from_labels = pytest.mark.parametrize(
    "objective", [o for o in OBJECTIVES.values() if o.feedback == "label"], ids=lambda o: o.name
)
from_pairs = pytest.mark.parametrize(
    "objective", [o for o in OBJECTIVES.values() if o.feedback == "pair"], ids=lambda o: o.name
)
seeds = st.integers(0, 2**31)

# Losses of one row when policy equals reference, and every state is the first one.
AT_REFERENCE = {
    "bco": math.log(2),
    "bce": math.log(2),
    "kto": 1 / 2,
    "dpo": math.log(2),
    "ipo": 1 / (4 * 0.1**2),
    "nca": 2 * math.log(2),
}


def differentiable(objective, batch):
    leaves = {name: getattr(batch, name).clone().requires_grad_() for name in POLICY[objective.feedback]}
    return replace(batch, **leaves), list(leaves.values())


def at_reference(objective, batch):
    names = zip(POLICY[objective.feedback], REFERENCE[objective.feedback], strict=True)
    return replace(batch, **{policy: getattr(batch, reference).clone() for policy, reference in names})


def moved_state(objective, seed, **how):
    """A state that has seen one step, so that it is not at its start."""
    start = objective.init()
    return objective.update(start, objective.observe(random_batch(objective, seed + 1, **how), start))


def extreme_batch(objective, far=1e4):
    """Float32 rows with every combination of log-ratios -far, 0 and far, both labels."""
    names = POLICY[objective.feedback]
    combinations = torch.tensor(list(itertools.product([-far, 0.0, far], repeat=len(names))))
    combinations = torch.cat([combinations, combinations])
    rows = len(combinations)
    batch = random_batch(objective, 3, rows=rows, dtype=torch.float32)
    changes = {}
    for column, (policy, reference) in enumerate(zip(names, REFERENCE[objective.feedback], strict=True)):
        changes[reference] = torch.zeros(rows)
        changes[policy] = combinations[:, column]
    if objective.feedback == "label":
        changes["desirable"] = torch.arange(rows) < rows // 2
        changes["mismatched_policy"] = combinations[:, 0]
        changes["mismatched_reference"] = torch.zeros(rows)
    return replace(batch, **changes)


@every_objective
def test_value_and_gradient_are_finite_at_extreme_log_ratios(objective):
    batch, leaves = differentiable(objective, extreme_batch(objective))
    start = objective.init()
    for state in (start, objective.update(start, objective.observe(batch, start))):
        loss = objective.loss(batch, state)
        assert loss.isfinite().all()
        for gradient in torch.autograd.grad(loss.sum(), leaves):
            assert gradient.isfinite().all()
        assert all(math.isfinite(value) for value in objective.describe(batch.detach(), state).values())
        assert all(value.isfinite() for value in state.values())


@every_objective
@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_row_order_does_not_matter(objective, seed):
    batch = random_batch(objective, seed, rows=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    state = moved_state(objective, seed)
    torch.testing.assert_close(objective.loss(batch.select(order), state), objective.loss(batch, state)[order])
    one, other = (objective.update(state, objective.observe(b, state)) for b in (batch, batch.select(order)))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert objective.describe(batch.select(order), state) == pytest.approx(objective.describe(batch, state))


def one_step(objective, parts, state):
    """A step as the trainer takes it: weighted mean loss, gradients, next state, from any cut into micro-batches."""
    parts = [differentiable(objective, part) for part in parts]
    sums = add_sums(*[objective.observe(part, state) for part, _ in parts])
    after = objective.update(state, sums)
    used = after if objective.observe_before else state
    total = sum(part.weight.sum() for part, _ in parts)
    loss = sum((part.weight * objective.loss(part, used)).sum() for part, _ in parts) / total
    gradients = torch.autograd.grad(loss, [leaf for _, leaves in parts for leaf in leaves])
    columns = [torch.cat(gradients[i :: len(parts[0][1])]) for i in range(len(parts[0][1]))]
    return loss.detach(), columns, after


@every_objective
@settings(deadline=None, max_examples=50)
@given(seed=seeds, rows=st.integers(1, 12), cuts=st.lists(st.integers(0, 12), max_size=5), steps=st.integers(1, 3))
def test_any_cut_of_a_step_gives_the_same_loss_gradient_and_state(objective, seed, rows, cuts, steps):
    whole_state = cut_state = objective.init()
    for step in range(steps):
        batch = random_batch(objective, seed + step, rows=rows)
        edges = [0, *sorted(min(cut, rows) for cut in cuts), rows]  # empty parts too: a worker may have no row left
        parts = [batch.select(slice(a, b)) for a, b in itertools.pairwise(edges)]
        loss, gradients, whole_state = one_step(objective, [batch], whole_state)
        cut_loss, cut_gradients, cut_state = one_step(objective, parts, cut_state)
        torch.testing.assert_close(cut_loss, loss, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(cut_gradients, gradients, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(cut_state, whole_state, rtol=1e-11, atol=1e-11)


@from_labels
@pytest.mark.parametrize("label", [True, False])
def test_a_step_with_one_class_only_works(objective, label):
    batch = random_batch(objective, 11)
    batch, leaves = differentiable(objective, replace(batch, desirable=torch.full((8,), label)))
    state = objective.init()
    for _ in range(2):
        state = objective.update(state, objective.observe(batch, state))
        loss = objective.loss(batch, state)
        assert loss.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss.sum(), leaves))
        assert all(math.isfinite(value) for value in objective.describe(batch.detach(), state).values())


@from_labels
def test_raising_a_liked_logp_lowers_the_loss_and_raising_a_disliked_one_does_not(objective):
    batch, [policy] = differentiable(objective, random_batch(objective, 5, rows=40, spread=2.0))
    (slopes,) = torch.autograd.grad(objective.loss(batch, moved_state(objective, 5)).sum(), policy)
    assert (slopes[batch.desirable] < 0).all()
    if "reference" in objective.needs:
        assert (slopes[~batch.desirable] > 0).all()
    else:
        assert (slopes[~batch.desirable] >= 0).all()


@from_pairs
def test_from_the_reference_raising_chosen_lowers_the_loss_and_raising_rejected_raises_it(objective):
    batch, [chosen, rejected] = differentiable(objective, at_reference(objective, random_batch(objective, 6)))
    slopes = torch.autograd.grad(objective.loss(batch, objective.init()).sum(), [chosen, rejected])
    assert (slopes[0] < 0).all()
    assert (slopes[1] > 0).all()


@with_reference
def test_loss_has_its_closed_form_where_policy_equals_reference(objective):
    batch = at_reference(objective, random_batch(objective, 7))
    expected = torch.full((8,), AT_REFERENCE[objective.name], dtype=torch.float64)
    torch.testing.assert_close(objective.loss(batch, objective.init()), expected, rtol=1e-14, atol=0)


@every_objective
def test_only_the_policy_receives_gradient(objective):
    # Soft labels, so that labels too are numbers that could receive one.
    batch = random_batch(objective, 8, **({"soft": True} if objective.feedback == "label" else {}))
    leaves = {f.name: getattr(batch, f.name) for f in fields(batch)}
    leaves = {name: value.clone().requires_grad_() for name, value in leaves.items() if value.is_floating_point()}
    state = {name: value.requires_grad_() for name, value in moved_state(objective, 8).items()}
    objective.loss(replace(batch, **leaves), state).sum().backward()
    learns = {name for name, value in leaves.items() if value.grad is not None and value.grad.abs().sum() > 0}
    assert learns == set(POLICY[objective.feedback])
    assert all(value.grad is None for value in state.values())
    sums = objective.observe(replace(batch, **leaves), state)
    parts = [*itertools.chain(*sums.values()), *objective.update(state, sums).values()]
    assert not any(part.requires_grad for part in parts)


@every_objective
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_keeps_the_dtype_and_the_state_is_always_float64(objective, dtype):
    batch, state = random_batch(objective, 9, dtype=dtype), moved_state(objective, 9, dtype=dtype)
    loss = objective.loss(batch, state)
    assert (loss.dtype, loss.shape) == (dtype, (8,))
    assert all(value.dtype == torch.float64 and value.shape == () for value in state.values())
    sums = objective.observe(batch, state)
    assert all(part.dtype == torch.float64 and part.shape == () for pair in sums.values() for part in pair)


@every_objective
def test_float32_agrees_with_float64(objective):
    fine = random_batch(objective, 10)
    names = [f.name for f in fields(fine) if getattr(fine, f.name).is_floating_point()]
    coarse = replace(fine, **{name: getattr(fine, name).float() for name in names})
    state = moved_state(objective, 10)
    torch.testing.assert_close(
        objective.loss(coarse, state).double(), objective.loss(fine, state), rtol=1e-4, atol=1e-4
    )


@with_reference
def test_a_constant_added_to_policy_and_reference_changes_nothing(objective):
    batch = random_batch(objective, 12)
    offset = 7 * torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names = POLICY[objective.feedback] + REFERENCE[objective.feedback]
    if objective.feedback == "label":
        names += ["mismatched_policy", "mismatched_reference"]
    moved = replace(batch, **{name: getattr(batch, name) + offset for name in names})
    loss, _, state = one_step(objective, [batch], objective.init())
    same_loss, _, same_state = one_step(objective, [moved], objective.init())
    torch.testing.assert_close(same_loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same_state, state, rtol=1e-12, atol=1e-12)


@every_objective
def test_the_loss_leaves_weights_to_the_trainer(objective):
    batch, state = random_batch(objective, 13), moved_state(objective, 13)
    assert torch.equal(objective.loss(batch, state), objective.loss(replace(batch, weight=None), state))


@with_reference
def test_a_missing_reference_is_an_error_that_says_so(objective):
    batch = replace(random_batch(objective, 14), **dict.fromkeys(REFERENCE[objective.feedback]))
    with pytest.raises(ValueError, match="needs reference log-probs"):
        objective.loss(batch, objective.init())


@every_objective
def test_a_batch_without_rows_gives_no_loss_and_no_sums(objective):
    batch, state = random_batch(objective, 15, rows=0), moved_state(objective, 15)
    assert objective.loss(batch, state).shape == (0,)
    assert all(float(total) == float(count) == 0 for total, count in objective.observe(batch, state).values())
    assert objective.describe(batch, state) == {}


@from_labels
def test_a_soft_label_mixes_the_losses_of_both_classes(objective):
    batch, state = random_batch(objective, 16, soft=True), moved_state(objective, 16)
    up, down = (objective.loss(replace(batch, desirable=torch.full((8,), label)), state) for label in (True, False))
    expected = batch.desirable * up + (1 - batch.desirable) * down
    torch.testing.assert_close(objective.loss(batch, state), expected, rtol=1e-13, atol=1e-13)


@from_labels
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_labels_may_be_numbers_as_well_as_truth_values(objective, dtype):
    batch, state = random_batch(objective, 17), moved_state(objective, 17)
    numbers = replace(batch, desirable=batch.desirable.to(dtype))
    assert torch.equal(objective.loss(numbers, state), objective.loss(batch, state))
    assert objective.observe(numbers, state) == objective.observe(batch, state)
    assert objective.describe(numbers, state) == objective.describe(batch, state)


@every_objective
def test_observe_and_update_change_neither_batch_nor_state(objective):
    batch, state = random_batch(objective, 18), moved_state(objective, 18)
    kept_batch = {f.name: getattr(batch, f.name).clone() for f in fields(batch)}
    kept_state = {name: value.clone() for name, value in state.items()}
    objective.update(state, objective.observe(batch, state))
    objective.describe(batch, state)
    torch.testing.assert_close(kept_state, state, rtol=0, atol=0)
    for name, value in kept_batch.items():
        torch.testing.assert_close(getattr(batch, name), value, rtol=0, atol=0, equal_nan=True)


@every_objective
def test_every_first_state_is_a_new_one(objective):
    for value in objective.init().values():
        value.fill_(float("nan"))
    assert all(value == 0 for value in objective.init().values())


@every_objective
def test_batches_may_live_on_another_device_than_the_state(objective):
    # The meta device refuses a mix of devices as an accelerator would, and any look at a value from the host.
    batch, state = random_batch(objective, 20), objective.init()
    away = replace(batch, **{f.name: getattr(batch, f.name).to("meta") for f in fields(batch)})
    assert objective.loss(away, state).device.type == "meta"
    assert all(part.device.type == "meta" for pair in objective.observe(away, state).values() for part in pair)


@every_objective
def test_a_stateless_objective_keeps_nothing(objective):
    if objective.memory is None:
        batch = random_batch(objective, 19)
        assert (objective.init(), objective.observe(batch, {}), objective.update({}, {})) == ({}, {}, {})
        assert torch.equal(objective.loss(batch), objective.loss(batch, {}))
