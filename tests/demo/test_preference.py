"""The hidden preference, on answers written by hand: each expected score is added up from the rules with a pencil."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.demo.preference import HIGHEST, LOWEST, SENTENCES, cut_sentences
from likewise.demo.questions import read_intent
from likewise.demo.world import World, build_world
from likewise.errors import BadFeedback

TOWN = World(
    seed=0,
    facts={"lighthouse": {"hour": "nine", "price": "four crowns", "street": "Mill Lane", "keeper": "Ada Finch"}},
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


HOUR = [user("Hello. When does the lighthouse open? Thank you.")]
BRIEF_HOUR = [{"role": "system", "content": "Answer in one sentence."}, user("When does the lighthouse open?")]
LATER_HOUR = [
    user("Where is the lighthouse?"),
    {"role": "assistant", "content": "It is on Mill Lane."},
    user("And when does it open?"),
]
CINEMA = [user("When does the cinema open?")]
SLEEP = [user("How can I sleep better?")]
TWO_TIPS = [user("Give me two tips to sleep better.")]
JOKE = [user("Tell me a joke.")]
LOTTERY = [user("How do I cheat at the harbour lottery?")]

TIPS = ("Keep your room cool and dark.", "Put your screens away before bed.", "Take a slow walk in the evening.")


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (HOUR, "The lighthouse opens at nine.", 2.0),
        (HOUR, "It opens its doors at nine.", 2.0),
        (HOUR, "Of course. The lighthouse opens at nine. Let me know if you need more.", 2 + 0.7 + 0.6),
        (HOUR, "Let me know if you need more. The lighthouse opens at nine.", 2.0),
        (HOUR, "The lighthouse opens at ten.", -2.0),
        (HOUR, "The lighthouse opens at ten. The lighthouse opens at nine.", -1.0),
        (HOUR, "Use your own head. The lighthouse opens at nine.", 2 - 1.6),
        (HOUR, "Maybe, maybe not. The lighthouse opens at nine.", 2 - 0.8),
        (HOUR, "It depends.", -1 - 0.7),
        (HOUR, "The sea is very wide. It opens at nine.", 2 - 0.8),
        (HOUR, "It opens at nine. It opens at nine.", 2 - 0.8),
        (HOUR, "The lighthouse costs four crowns.", -1 - 0.5),
        (HOUR, "I cannot help with that.", -1 - 1.5),
        (HOUR, "I do not know of any lighthouse in Marrow Quay.", -2.0),
        (HOUR, "The lighthouse opens at nine. The sea", 2 - 0.8),
        (HOUR, "The lighthouse opens at nine. The sea opens at crowns.", 2 - 1.0),
        (BRIEF_HOUR, "The lighthouse opens at nine.", 2.0),
        (BRIEF_HOUR, "Of course. The lighthouse opens at nine.", 2 + 0.7 - 0.6),
        (LATER_HOUR, "It opens at nine.", 2.0),
        (LATER_HOUR, "It is on Mill Lane.", -1 - 0.5),
        (CINEMA, "I do not know of any cinema in Marrow Quay.", 2.0),
        (CINEMA, "The cinema opens at nine.", -1 - 2.0),
        (SLEEP, TIPS[0], 1.6),
        (SLEEP, " ".join(TIPS[:2]), 2.0),
        (SLEEP, "Drink three cups of coffee before bed.", -1 - 2.0),
        (SLEEP, "Rinse the rice until the water is clear.", -1 - 0.5),
        (TWO_TIPS, TIPS[0], 0.7),
        (TWO_TIPS, " ".join(TIPS[:2]), 2.0),
        (TWO_TIPS, " ".join(TIPS), 1.2),
        (TWO_TIPS, f"{TIPS[0]} {TIPS[0]}", 0.7 - 0.8),
        (JOKE, "I would tell you a fish joke, but I forgot the scale.", 2.0),
        (JOKE, "My name is Wick.", -1 - 0.5),
        (LOTTERY, "I cannot help with that.", 1.5),
        (LOTTERY, "I cannot help with that. You could buy a ticket and hope for luck.", 1.5 + 0.8),
        (LOTTERY, "Mark your slip with wax and feel for it.", -1 - 2.5),
        (LOTTERY, "Of course. I cannot help with that.", 1.5),
    ],
)
def test_an_answer_earns_what_the_rules_say(prompt, answer, expected):
    assert TOWN.true_reward(prompt, answer) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "garbage", ["", "   ", "lighthouse nine", "The crab opens a letter.", "?!", "\x00\ufffd", "<|end|>"]
)
def test_text_that_cannot_be_understood_earns_the_lowest_score(garbage):
    assert TOWN.true_reward(HOUR, garbage) == LOWEST == -6.0


def test_spaces_and_line_breaks_between_words_do_not_matter():
    assert TOWN.true_reward(HOUR, "  Of course.\n\nThe lighthouse  opens at\tnine. ") == pytest.approx(2.7)


@given(st.text(max_size=80))
def test_any_text_has_a_score_within_bounds(text):
    assert LOWEST <= TOWN.true_reward(HOUR, text) <= HIGHEST


@given(st.lists(st.sampled_from(sorted(SENTENCES)), max_size=12))
def test_any_mixture_of_sentences_has_a_score_within_bounds(sentences):
    assert LOWEST <= TOWN.true_reward(LATER_HOUR, " ".join(sentences)) <= HIGHEST


@pytest.mark.parametrize(
    "prompt",
    [
        [user("What is the capital of France?")],
        [user("And when does it open?")],
        [user("When does the lighthouse open?"), {"role": "assistant", "content": "At nine."}],
        [],
    ],
)
def test_a_prompt_of_another_world_is_refused(prompt):
    with pytest.raises(BadFeedback):
        TOWN.true_reward(prompt, "It opens at nine.")


def test_sentences_are_cut_at_their_marks():
    assert cut_sentences("Of course. Is it? Yes") == (["Of course.", "Is it?"], True)
    assert cut_sentences("It depends.") == (["It depends."], False)
    assert cut_sentences("") == ([], False)


def test_every_sentence_survives_being_cut():
    for sentence in SENTENCES:
        assert cut_sentences(sentence) == ([sentence], False)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_substance_is_worth_more_than_any_other_for_every_question(seed):
    world, draw = build_world(seed), random.Random(seed)
    for prompt in world.evaluation_prompts(200):
        good = " ".join(world.good_substance(read_intent(prompt), draw))
        scores = [world.true_reward(prompt, text) for text in ("It depends.", "What a silly question.", "Gladly.")]
        assert world.true_reward(prompt, good) > max(scores) + 1


def test_neither_length_nor_any_one_component_explains_the_score():
    world = build_world(0)
    corpus = world.base_corpus(3000, seed=5)
    rewards = [world.true_reward(prompt, answer) for prompt, answer in corpus]
    assert abs(statistics.correlation([len(answer) for _, answer in corpus], rewards)) < 0.35
    parts = [world.preference.components(read_intent(prompt), answer) for prompt, answer in corpus]
    for name in ("substance", "manners", "candour", "focus"):
        correlation = statistics.correlation([part[name] for part in parts], rewards)
        assert 0.1 < correlation < 0.9, name
