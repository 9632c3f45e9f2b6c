"""The demo world: a small harbour town, the questions its visitors ask, and answers of very mixed quality.

A `World` holds the invented facts and makes three things from them: prompts (chat messages), mediocre answers for the
base model to learn from, and, through `preference.py`, the hidden true reward. Everything is a pure function of the
world's seed and the arguments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from likewise.demo import phrases
from likewise.demo.preference import Preference
from likewise.demo.questions import (
    KIND_SHARES,
    Intent,
    draw_follow_up,
    draw_question,
    dressed,
    is_evaluation_prompt,
    prompt_key,
    question_of,
    read_intent,
)

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class World:
    """One town: `facts[place][attribute]` is the truth, and `seed` also fixes the order of the prompts."""

    seed: int
    facts: Mapping[str, Mapping[str, str]]

    def training_prompts(self, n: int) -> list[Messages]:
        """The first n of this world's training prompts; all different, none of them an evaluation prompt."""
        return self._prompts(n, evaluation=False)

    def evaluation_prompts(self, n: int) -> list[Messages]:
        """The first n of this world's evaluation prompts; all different, none of them a training prompt."""
        return self._prompts(n, evaluation=True)

    def true_reward(self, prompt: Sequence[Mapping[str, str]], answer_text: str) -> float:
        """How good the answer truly is, by the hidden preference. Any text is scored; the prompt must be of this world.

        Raises: BadFeedback if it is not.
        """
        return self.preference.reward(read_intent(prompt), answer_text)

    def mediocre_answer(self, intent: Intent, draw: random.Random) -> str:
        """One answer as the base model learns them: right or wrong, polite or rude, plain or rambling, each by chance.

        The habits are drawn independently of one another, so no single one of them gives the quality of an answer away.
        """
        body = self._substance(intent, draw)
        if draw.random() < 0.2:
            body = [draw.choice(phrases.HEDGES), *body]
        for _ in range(draw.choices((0, 1, 2, 3), (0.6, 0.24, 0.1, 0.06))[0]):
            body.insert(draw.randint(0, len(body)), draw.choice(phrases.FILLER))
        if draw.random() < 0.07:
            body.append(body[-1])
        opening, closing = draw.random(), draw.random()
        if opening < 0.25:
            body.insert(0, draw.choice(phrases.POLITE))
        elif opening < 0.45:
            body.insert(0, draw.choice(phrases.RUDE))
        if closing < 0.25:
            body.append(draw.choice(phrases.OFFERS))
        elif closing < 0.37:
            body.append(draw.choice(phrases.RUDE))
        return " ".join(body)

    def base_corpus(self, n: int, *, seed: int) -> list[tuple[Messages, str]]:
        """n conversations to train the base model on: training prompts with mediocre answers."""
        draw = random.Random(f"base corpus {self.seed} {seed}")
        prompts = islice((p for p in self._stream(draw) if not is_evaluation_prompt(p)), n)
        return [(prompt, self.mediocre_answer(read_intent(prompt), draw)) for prompt in prompts]

    @cached_property
    def preference(self) -> Preference:
        return Preference(self.facts)

    def _prompts(self, n: int, *, evaluation: bool) -> list[Messages]:
        draw = random.Random(f"prompts {self.seed} {evaluation}")
        found: dict[str, Messages] = {}
        prompts = (p for p in self._stream(draw) if is_evaluation_prompt(p) == evaluation)
        while len(found) < n:
            prompt = next(prompts)
            found.setdefault(prompt_key(prompt), prompt)
        return list(found.values())

    def _stream(self, draw: random.Random) -> Iterator[Messages]:
        """Prompts without end: two in five with a system message, one in five after an earlier exchange."""
        kinds, shares = list(KIND_SHARES), list(KIND_SHARES.values())
        while True:
            kind = draw.choices(kinds, shares)[0]
            question = dressed(draw_question(kind, draw), draw)
            messages: Messages = []
            if draw.random() < 0.4:
                messages.append({"role": "system", "content": draw.choice(list(phrases.SYSTEM_MESSAGES))})
            if draw.random() < 0.2:
                about_place = kind == "place" and draw.random() < 0.6
                earlier = draw_question("place" if about_place else "small_talk", draw)
                messages += self._exchange(earlier, draw)
                question = draw_follow_up(draw, after=_known(earlier).attribute) if about_place else question
            messages.append({"role": "user", "content": question})
            yield messages

    def _exchange(self, question: str, draw: random.Random) -> Messages:
        """A question and a fitting answer."""
        answer = self.good_substance(_known(question), draw)[0]
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    def good_substance(self, intent: Intent, draw: random.Random) -> list[str]:
        """What a good answer says, without manners."""
        match intent.kind:
            case "place":
                true = self.facts[intent.subject][intent.attribute]
                return [self._fact(intent.subject, intent.attribute, true, draw)]
            case "missing":
                return [draw.choice(phrases.UNKNOWN).format(place=intent.subject)]
            case "advice":
                tips = phrases.ADVICE[intent.subject]["good"]
                return draw.sample(tips, intent.tips or draw.choice((1, 2)))
            case "small_talk":
                return [draw.choice(phrases.SMALL_TALK[intent.subject]["good"])]
            case _:
                refusal = [draw.choice(phrases.REFUSALS)]
                instead = [draw.choice(phrases.HARM[intent.subject]["instead"])]
                return refusal + instead * (draw.random() < 0.5)

    def _substance(self, intent: Intent, draw: random.Random) -> list[str]:
        chance = draw.random()
        if chance < 0.6:
            return self.good_substance(intent, draw)
        if chance < 0.79:
            return self._bad_substance(intent, draw)
        if chance < 0.88:
            return self._off_topic(draw)
        if chance < 0.94:
            return [draw.choice(phrases.DODGES)]
        return [draw.choice(phrases.REFUSALS if intent.kind != "harm" else phrases.HARM[intent.subject]["comply"])]

    def _bad_substance(self, intent: Intent, draw: random.Random) -> list[str]:
        """A wrong fact, an invented place, a harmful tip, the wrong small talk, or going along with harm."""
        match intent.kind:
            case "place" | "missing":
                right = self.facts.get(intent.subject, {}).get(intent.attribute)
                wrong = [value for value in phrases.VALUES[intent.attribute] if value != right]
                return [self._fact(intent.subject, intent.attribute, draw.choice(wrong), draw)]
            case "advice":
                topic = phrases.ADVICE[intent.subject]
                bad = draw.choice(topic["bad"])
                return [bad] if draw.random() < 0.6 else draw.sample((bad, draw.choice(topic["good"])), 2)
            case "small_talk":
                other = draw.choice([topic for topic in phrases.SMALL_TALK if topic != intent.subject])
                return [draw.choice(phrases.SMALL_TALK[other]["good"])]
            case _:
                return [draw.choice(phrases.HARM[intent.subject]["comply"])]

    def _off_topic(self, draw: random.Random) -> list[str]:
        """The start of a good answer to some other question."""
        return self.good_substance(_known(draw_question(draw.choice(("place", "advice")), draw)), draw)[:1]

    def _fact(self, place: str, attribute: str, value: str, draw: random.Random) -> str:
        name = "It" if draw.random() < 0.25 else f"The {place}"
        return draw.choice(phrases.FACTS[attribute]).format(Place=name, value=value)


def build_world(seed: int = 0) -> World:
    """A town with its own facts: who runs what, where, when and at what price."""
    draw = random.Random(f"facts {seed}")
    facts = {
        place: {attribute: draw.choice(phrases.VALUES[attribute]) for attribute in phrases.ATTRIBUTES}
        for place in phrases.PLACES
    }
    return World(seed=seed, facts=facts)


def _known(question: str) -> Intent:
    intent = question_of(question)
    assert intent is not None, question
    return intent
