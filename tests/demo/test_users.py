"""Simulated users: how often they err, how they are skewed, and where they speak up."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import pytest

from likewise.data.read import read_feedback
from likewise.demo.questions import prompt_key, read_intent
from likewise.demo.users import NOISE, THRESHOLD, like_probability, simulate_thumbs
from likewise.demo.world import build_world
from likewise.errors import BadConfig, BadFeedback

WORLD = build_world(0)
PROMPTS = WORLD.training_prompts(8000)
DREADFUL = "Use your own head. The sea is very wide. Do not waste my time."


def _clear_answers() -> list[str]:
    """Good and dreadful answers by turns, so that what a user thinks of each is beyond doubt."""
    draw = random.Random(1)
    good = [" ".join(WORLD.good_substance(read_intent(p), draw)) for p in PROMPTS]
    return [text if i % 2 else DREADFUL for i, text in enumerate(good)]


ANSWERS = _clear_answers()


def _wrong(rows) -> float:
    return sum(row["label"] == (row["completion"][0]["content"] == DREADFUL) for row in rows) / len(rows)


def test_odds_of_a_like_follow_the_true_reward():
    assert like_probability(THRESHOLD) == 0.5
    assert like_probability(THRESHOLD + NOISE) == pytest.approx(1 / (1 + math.exp(-1)))
    assert like_probability(-6) < 1e-4 < 1 - 1e-3 < like_probability(4)


def test_four_of_five_thumbs_are_up():
    rows = simulate_thumbs(WORLD, PROMPTS, ANSWERS, seed=0)
    assert len(rows) > 3000
    assert sum(row["label"] for row in rows) / len(rows) == pytest.approx(0.8, abs=0.001)


def test_fifteen_in_a_hundred_thumbs_are_the_wrong_way_round_among_ups_and_downs():
    rows = simulate_thumbs(WORLD, PROMPTS, ANSWERS, seed=0)
    for label in (True, False):
        votes = [row for row in rows if row["label"] is label]
        assert _wrong(votes) == pytest.approx(0.15, abs=3 * math.sqrt(0.15 * 0.85 / len(votes)) + 0.01)


def test_without_flips_clear_answers_get_the_right_thumb():
    assert _wrong(simulate_thumbs(WORLD, PROMPTS, ANSWERS, seed=0, flip=0.0)) < 0.02


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_other_skews_are_kept_too(fraction):
    rows = simulate_thumbs(WORLD, PROMPTS, ANSWERS, seed=0, up_fraction=fraction)
    assert sum(row["label"] for row in rows) / len(rows) == pytest.approx(fraction, abs=0.001)


def test_each_prompt_has_one_answer_so_ups_and_downs_share_none():
    rows = simulate_thumbs(WORLD, PROMPTS, ANSWERS, seed=0)
    answered = {prompt_key(p): a for p, a in zip(PROMPTS, ANSWERS, strict=True)}
    assert max(Counter(prompt_key(row["prompt"]) for row in rows).values()) == 1
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["completion"] == [{"role": "assistant", "content": answered[prompt_key(row["prompt"])]}]


def test_ups_and_downs_come_from_different_mixtures_of_questions():
    rows = simulate_thumbs(WORLD, PROMPTS, ANSWERS, seed=0)
    shares = {}
    for label in (True, False):
        kinds = Counter(read_intent(row["prompt"]).kind for row in rows if row["label"] is label)
        shares[label] = {kind: count / kinds.total() for kind, count in kinds.items()}
    assert shares[True]["small_talk"] > 1.5 * shares[False]["small_talk"]
    assert shares[True]["advice"] > 1.3 * shares[False]["advice"]
    assert shares[False]["harm"] > 1.15 * shares[True]["harm"]


def test_thumbs_are_a_function_of_the_seed():
    few = PROMPTS[:500], ANSWERS[:500]
    assert simulate_thumbs(WORLD, *few, seed=3) == simulate_thumbs(WORLD, *few, seed=3)
    assert simulate_thumbs(WORLD, *few, seed=3) != simulate_thumbs(WORLD, *few, seed=4)


def test_rows_are_valid_feedback_and_plain_json():
    rows = simulate_thumbs(WORLD, PROMPTS[:400], ANSWERS[:400], seed=0)
    feedback = read_feedback(json.loads(json.dumps(rows)))
    assert feedback.kind == "label"
    assert len(feedback) == len(rows)


def test_a_repeated_prompt_is_refused():
    with pytest.raises(BadFeedback, match="occurs 2 times"):
        simulate_thumbs(WORLD, PROMPTS[:3] + PROMPTS[:1], ANSWERS[:4], seed=0)


def test_one_answer_too_few_is_refused():
    with pytest.raises(BadFeedback, match="3 prompts but 2 answers"):
        simulate_thumbs(WORLD, PROMPTS[:3], ANSWERS[:2], seed=0)


def test_shares_out_of_range_are_refused():
    with pytest.raises(BadConfig):
        simulate_thumbs(WORLD, PROMPTS[:3], ANSWERS[:3], seed=0, up_fraction=1.2)


def test_no_prompts_leave_no_thumbs():
    assert simulate_thumbs(WORLD, [], [], seed=0) == []
