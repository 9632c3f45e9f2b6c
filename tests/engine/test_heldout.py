"""Rows kept apart: whole prompts, never trained on, measured at the end."""

from __future__ import annotations

import numpy as np
import pytest

from likewise.engine.heldout import split


def test_a_prompt_is_never_on_both_sides_of_a_split(tiny_tokenizer):
    from likewise.data.read import read_feedback
    from likewise.data.tokens import tokenize_feedback

    rows = [{"prompt": f"{i % 20}: ", "completion": f"answer {i}", "label": i % 3 == 0} for i in range(60)]
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    train, held = split(tokens, 0.25, seed=0)
    assert sorted([*train, *held]) == list(range(60))
    assert not {i % 20 for i in train} & {i % 20 for i in held}
    assert len({i % 20 for i in held}) == 5
    again, other = split(tokens, 0.25, seed=0), split(tokens, 0.25, seed=1)
    np.testing.assert_array_equal(held, again[1])
    assert set(held) != set(other[1])
    assert len(split(tokens, 0.0, seed=0)[1]) == 0


def test_held_out_rows_are_measured_and_never_trained_on(align, pairs):
    run = align(pairs(40), "dpo", holdout=0.25)
    assert sum(m["examples"] for m in run.metrics) == 30
    found = run.result.heldout
    assert (found.measure, found.examples, found.estimate.n) == ("accuracy", 10, 10)
    # With pairs held out by prompt, the accuracy is a count of tenths.
    assert found.estimate.value * 10 == pytest.approx(round(found.estimate.value * 10))
