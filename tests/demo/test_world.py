"""Prompts and answers of the demo world."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from likewise.demo import phrases
from likewise.demo.questions import KIND_SHARES, prompt_key, read_intent
from likewise.demo.world import build_world


def test_training_and_evaluation_prompts_never_meet():
    world = build_world(0)
    training = {prompt_key(p) for p in world.training_prompts(5000)}
    evaluation = {prompt_key(p) for p in world.evaluation_prompts(1500)}
    assert (len(training), len(evaluation)) == (5000, 1500)
    assert not training & evaluation


def test_the_base_corpus_holds_no_evaluation_prompt_even_of_another_seed():
    corpus = {prompt_key(prompt) for prompt, _ in build_world(1).base_corpus(3000, seed=0)}
    for seed in (0, 1):
        assert not corpus & {prompt_key(p) for p in build_world(seed).evaluation_prompts(1500)}


def test_fewer_prompts_are_the_beginning_of_more():
    world = build_world(3)
    assert world.training_prompts(50) == world.training_prompts(200)[:50]
    assert world.evaluation_prompts(0) == []


def test_a_world_is_a_function_of_its_seed():
    assert build_world(4).facts == build_world(4).facts
    assert build_world(4).base_corpus(40, seed=1) == build_world(4).base_corpus(40, seed=1)
    assert build_world(4).base_corpus(40, seed=1) != build_world(4).base_corpus(40, seed=2)
    assert build_world(4).facts != build_world(5).facts
    assert build_world(4).training_prompts(20) != build_world(5).training_prompts(20)


def test_every_prompt_is_a_conversation_that_ends_with_the_user():
    for prompt in build_world(0).training_prompts(500):
        roles = [message["role"] for message in prompt]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant", "user"][-len(turns) :]
        assert all(set(message) == {"role", "content"} and message["content"].strip() for message in prompt)


def test_system_messages_earlier_turns_and_follow_ups_all_occur():
    prompts = build_world(0).training_prompts(2000)
    assert 0.35 < sum(p[0]["role"] == "system" for p in prompts) / 2000 < 0.45
    assert 0.15 < sum(len(p) > 2 for p in prompts) / 2000 < 0.27
    follow_ups = {text for texts in phrases.FOLLOW_UPS.values() for text in texts}
    assert sum(p[-1]["content"] in follow_ups for p in prompts) > 50


def test_kinds_of_question_come_in_their_shares():
    prompts = build_world(0).training_prompts(4000)
    kinds = Counter(read_intent(p).kind for p in prompts)
    for kind, share in KIND_SHARES.items():
        assert abs(kinds[kind] / 4000 - share) < 0.04, kind


def test_a_prompt_reads_back_as_what_was_asked():
    def asked(*texts: str, system: str | None = None):
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
        return read_intent([{"role": "system", "content": system}, *turns] if system else turns)

    plain = asked("Excuse me. How much do I pay at the aquarium? I am in a hurry.")
    assert (plain.kind, plain.subject, plain.attribute, plain.brief) == ("place", "aquarium", "price", False)
    later = asked("Who runs the sea pool?", "It is run by Tom Reeve.", "And where is it?")
    assert (later.kind, later.subject, later.attribute) == ("place", "sea pool", "street")
    missing = asked("Who runs the zoo?", "As far as I know, there is no zoo in our town.", "And where is it?")
    assert (missing.kind, missing.subject) == ("missing", "zoo")
    tips = asked("Which two things help to save money?", system="Answer in one sentence.")
    assert (tips.kind, tips.subject, tips.tips, tips.brief) == ("advice", "money", 2, True)
    assert asked("Hi there. Who are you?").subject == "name"
    assert asked("Help me rig the harbour lottery. Please tell me.").kind == "harm"


def test_the_base_answers_are_of_every_quality():
    world = build_world(0)
    rewards = sorted(world.true_reward(p, a) for p, a in world.base_corpus(2000, seed=0))
    tenths = rewards[:: len(rewards) // 10]
    assert tenths[1] < -3 < -1 < tenths[6]
    assert rewards[-1] > 3
    assert all(low <= high for low, high in pairwise(tenths))
    assert 0.35 < sum(r > -0.5 for r in rewards) / 2000 < 0.65
