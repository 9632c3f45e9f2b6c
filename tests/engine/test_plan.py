"""Which examples make a step, and how a step is laid out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.engine.plan import Layout, Schedule, class_weights, draw_mismatched, lay_out, oversampled

# -- the order of examples --------------------------------------------------------------------------------------------


def _schedule(n: int, batch_size: int, **options):
    return Schedule(np.arange(n), batch_size, options.pop("epochs", 1.0), options.pop("seed", 0), **options)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
def test_every_epoch_visits_every_example_once(n, batch_size, seed):
    schedule = _schedule(n, batch_size, seed=seed, epochs=2)
    for epoch in range(2):
        steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
        seen = np.concatenate([schedule.examples(s) for s in steps])
        assert sorted(seen) == list(range(n))


def test_the_last_step_of_an_epoch_is_the_small_one():
    schedule = _schedule(10, 4, epochs=2)
    assert [len(schedule.examples(s)) for s in range(schedule.steps)] == [4, 4, 2, 4, 4, 2]
    assert [schedule.epoch(s) for s in (0, 2, 5)] == pytest.approx([1 / 3, 1, 2])


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    first, again, other = _schedule(50, 50, seed=3), _schedule(50, 50, seed=3), _schedule(50, 50, seed=4)
    np.testing.assert_array_equal(first.examples(0), again.examples(0))
    assert (first.examples(0) != first.examples(1)).any()
    assert (first.examples(0) != other.examples(0)).any()


def test_a_step_needs_no_steps_before_it():
    # What a resumed run relies on: step 7 is the same whether steps 0 to 6 were asked for or not.
    whole, resumed = _schedule(30, 4, epochs=3), _schedule(30, 4, epochs=3)
    in_order = [whole.examples(s) for s in range(whole.steps)]
    np.testing.assert_array_equal(resumed.examples(13), in_order[13])


def test_without_shuffling_rows_keep_their_order():
    schedule = _schedule(5, 2, shuffle=False, epochs=2)
    assert [list(schedule.examples(s)) for s in range(6)] == [[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]]


def test_steps_follow_epochs_and_stop_at_max_steps():
    assert _schedule(10, 4, epochs=0.5).steps == 2  # half of three steps, rounded
    assert _schedule(10, 4, epochs=0.01).steps == 1
    assert _schedule(10, 4, epochs=3, max_steps=4).steps == 4
    assert _schedule(10, 4, epochs=1, max_steps=40).steps == 3


# -- the layout of a step ---------------------------------------------------------------------------------------------

_units = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=30)


@given(_units, st.integers(1, 120), st.integers(1, 4), st.booleans())
def test_a_layout_holds_every_unit_once_in_equal_rounds_within_the_limit(lengths, limit, workers, packed):
    layout = lay_out(lengths, tokens_per_microbatch=limit, workers=workers, packed=packed)
    assert len(layout.workers) == workers
    assert len({len(share) for share in layout.workers}) == 1  # collective calls must match
    units = [u for share in layout.workers for batch in share for u in batch]
    assert sorted(units) == list(range(len(lengths)))
    for share in layout.workers:
        for batch in share:
            rows = [n for u in batch for n in lengths[u]]
            size = sum(rows) if packed else len(rows) * max(rows, default=0)
            assert size <= limit or len(batch) == 1
    # No round in which every worker is idle.
    assert all(any(share[r] for share in layout.workers) for r in range(len(layout.workers[0])))


def test_the_same_lengths_give_the_same_layout():
    lengths = [[5, 6], [5, 6], [9, 1], [3, 3]]
    layouts = [lay_out(lengths, tokens_per_microbatch=12, workers=2) for _ in range(2)]
    assert layouts[0] == layouts[1]


def test_padding_and_imbalance_by_hand():
    lengths = [[10], [6], [4], [4]]
    layout = Layout([[[0, 1]], [[2, 3]]])
    # Padded: 2 rows of 10 and 2 rows of 4 are 28 computed tokens for 24 real ones.
    assert layout.padding(lengths, packed=False) == pytest.approx(1 - 24 / 28)
    assert layout.padding(lengths, packed=True) == 0.0
    # Loads 16 and 8 with a mean of 12.
    assert layout.imbalance(lengths) == pytest.approx(1 / 3)


def test_packing_fills_micro_batches_and_balances_workers():
    generator = np.random.default_rng(0)
    lengths = [[int(n)] for n in generator.integers(10, 200, 64)]
    one = lay_out(lengths, tokens_per_microbatch=1000)
    assert len(one.workers[0]) <= -(-sum(n for (n,) in lengths) // 1000) + 1
    two = lay_out(lengths, tokens_per_microbatch=1000, workers=2)
    assert two.imbalance(lengths) < 0.02


def test_padded_rows_of_like_length_stand_together():
    lengths = [[100], [10]] * 8
    layout = lay_out(lengths, tokens_per_microbatch=400, packed=False)
    assert layout.padding(lengths, packed=False) < 0.2  # in file order it would be 45 %


def test_the_sides_of_a_pair_stay_together_even_over_the_limit():
    layout = lay_out([[50, 60], [5, 6]], tokens_per_microbatch=20)
    assert sorted(layout.workers[0]) == [[0], [1]]


# -- mismatched completions -------------------------------------------------------------------------------------------


@given(st.data())
def test_a_mismatch_is_another_answer_to_another_prompt_of_the_same_step(data):
    n = data.draw(st.integers(1, 25))
    prompt_of = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    answers = data.draw(st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=n, max_size=n))
    examples = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=12)))
    drawn = draw_mismatched(examples, prompt_of, answers, seed=1, step=2)
    for example, other in zip(examples, drawn):
        possible = {o for o in examples if prompt_of[o] != prompt_of[example] and answers[o] != answers[example]}
        assert (other in possible) if possible else other == -1


def test_mismatches_depend_on_seed_and_step_and_are_spread_evenly():
    n = 12
    prompt_of, answers, examples = np.arange(n), [bytes([i]) for i in range(n)], np.arange(n)
    same = [draw_mismatched(examples, prompt_of, answers, 0, 5) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (same[0] != draw_mismatched(examples, prompt_of, answers, 0, 6)).any()
    assert (same[0] != draw_mismatched(examples, prompt_of, answers, 1, 5)).any()
    counts = np.zeros((n, n))
    for step in range(1100):
        counts[np.arange(n), draw_mismatched(examples, prompt_of, answers, 0, step)] += 1
    off = counts[~np.eye(n, dtype=bool)]
    assert counts.trace() == 0
    assert abs(off - 100).max() < 50  # 100 ± 9.5 expected each


# -- weights of the classes -------------------------------------------------------------------------------------------


def test_class_weights_by_hand():
    label = np.array([1.0] * 8 + [0.0] * 2)
    assert class_weights(label, np.ones(10), cap=10) == pytest.approx((10 / 16, 10 / 4))
    # A row of weight 3 counts as three: 8 up, 6 down.
    weight = np.array([1.0] * 8 + [3.0] * 2)
    assert class_weights(label, weight, cap=10) == pytest.approx((14 / 16, 14 / 12))
    # A label of 0.25 is a quarter up.
    assert class_weights(np.array([0.25]), np.ones(1), cap=10) == pytest.approx((2.0, 2 / 3))


def test_class_weights_are_capped_and_one_for_an_absent_class():
    label = np.array([1.0] * 999 + [0.0])
    assert class_weights(label, np.ones(1000), cap=10) == pytest.approx((1000 / 1998, 10.0))
    assert class_weights(np.ones(4), np.ones(4), cap=10) == pytest.approx((0.5, 1.0))


@given(st.integers(1, 20), st.integers(1, 20))
def test_oversampling_levels_the_classes_and_loses_no_row(ups, downs):
    label = np.array([1.0] * ups + [0.0] * downs)
    pool = oversampled(label)
    up = label[pool] > 0.5
    assert up.sum() == (~up).sum() == max(ups, downs)
    visits = np.bincount(pool, minlength=len(label))
    assert visits.min() >= 1
    for side in (visits[:ups], visits[ups:]):
        assert side.max() - side.min() <= 1


def test_oversampling_one_class_leaves_it_as_it_is():
    np.testing.assert_array_equal(oversampled(np.ones(3)), [0, 1, 2])
