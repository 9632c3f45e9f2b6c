"""Simulated users: they feel the true preference, with noise, and say so with a thumb, now and then by mistake."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from likewise.demo.questions import prompt_key, read_intent
from likewise.demo.world import Messages, World
from likewise.errors import BadConfig, BadFeedback

#: A user likes an answer with probability sigmoid((true reward - THRESHOLD) / NOISE).
THRESHOLD, NOISE = -0.5, 0.5

#: The chance that a thumb is given at all, by kind of question and thumb. Delight is voiced over small talk, anger over
#: facts and refusals, so the prompts of ups and downs are drawn from different mixtures, as in a real log.
VOICE = {
    "place": (0.8, 0.9),
    "missing": (0.7, 1.0),
    "advice": (0.95, 0.6),
    "small_talk": (1.0, 0.5),
    "harm": (0.7, 1.0),
}


def simulate_thumbs(
    world: World,
    prompts: Sequence[Messages],
    answers: Sequence[str],
    *,
    seed: int,
    up_fraction: float = 0.8,
    flip: float = 0.15,
) -> list[dict[str, Any]]:
    """Feedback rows `{prompt, completion, label, id}` that users leave on these answers, in mixed order.

    1. Each user likes or dislikes the one answer they got: a coin whose odds follow the true reward.
    2. A share `flip` of these opinions turns into the wrong thumb, at random.
    3. Not everyone votes, and who does depends on the kind of question and on the thumb (`VOICE`).
    4. Of the thumbs so given as many are kept as make a share `up_fraction` of ups: people hold back the rest.

    So there are fewer rows than answers (about 0.47 a prompt for the demo's base model), each prompt occurs at most
    once, and the prompts of ups and of downs follow different distributions. `flip` is a share of the opinions; the
    share of wrong thumbs among the ups, and among the downs, comes near it where likes and dislikes are about as many.
    Raises: BadFeedback if a prompt occurs twice or the two sequences differ in length; BadConfig for shares outside
    their range.
    """
    _check(prompts, answers, up_fraction, flip)
    draw = random.Random(f"thumbs {world.seed} {seed}")
    given: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        likes = draw.random() < like_probability(world.true_reward(prompt, answer))
        label = likes != (draw.random() < flip)
        up_voice, down_voice = VOICE[read_intent(prompt).kind]
        if draw.random() < (up_voice if label else down_voice):
            completion = [{"role": "assistant", "content": answer}]
            given[label].append({"prompt": prompt, "completion": completion, "label": label, "id": f"demo-{index}"})
    ups, downs = _skewed_counts(len(given[True]), len(given[False]), up_fraction)
    rows = draw.sample(given[True], ups) + draw.sample(given[False], downs)
    draw.shuffle(rows)
    return rows


def like_probability(true_reward: float) -> float:
    return 1 / (1 + math.exp(-(true_reward - THRESHOLD) / NOISE))


def _skewed_counts(ups: int, downs: int, up_fraction: float) -> tuple[int, int]:
    """The largest counts in the wanted ratio that the given thumbs allow."""
    if up_fraction in (0.0, 1.0):
        return (ups, 0) if up_fraction else (0, downs)
    total = min(ups / up_fraction, downs / (1 - up_fraction))
    return min(ups, round(total * up_fraction)), min(downs, round(total * (1 - up_fraction)))


def _check(prompts: Sequence[Messages], answers: Sequence[str], up_fraction: float, flip: float) -> None:
    if len(prompts) != len(answers):
        raise BadFeedback(f"{len(prompts)} prompts but {len(answers)} answers; each user gets one answer to one prompt")
    key, times = Counter(map(prompt_key, prompts)).most_common(1)[0] if prompts else ("", 0)
    if times > 1:
        raise BadFeedback(f"a prompt occurs {times} times; simulated users see each prompt once: {key[:200]}")
    if not 0 <= up_fraction <= 1 or not 0 <= flip <= 1:
        raise BadConfig(f"up_fraction and flip are shares between 0 and 1; got {up_fraction} and {flip}")
