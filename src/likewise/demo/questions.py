"""What visitors ask in the demo world, and the way back from a prompt's text to what it asks for."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from likewise.demo import phrases
from likewise.errors import BadFeedback

#: How often each kind of question is asked.
KIND_SHARES = {"place": 0.38, "missing": 0.08, "advice": 0.22, "small_talk": 0.16, "harm": 0.16}

#: One prompt in this many (by a hash of its text) is kept for evaluation.
EVALUATION_SHARE = 5


@dataclass(frozen=True)
class Intent:
    """What a prompt asks for.

    `kind` is a key of `KIND_SHARES`; `subject` is a place or topic; `attribute` is set for places; `tips` is 2 when two
    were asked for and 0 when the number was left open; `brief` is true when the system message asks for one sentence.
    """

    kind: str
    subject: str
    attribute: str = ""
    tips: int = 0
    brief: bool = False


def read_intent(prompt: Sequence[Mapping[str, str]]) -> Intent:
    """What the last user message asks for, looking back over the conversation for what "it" means.

    Raises: BadFeedback if the conversation could not have come from the demo world.
    """
    asked = [question_of(m["content"]) for m in prompt if m["role"] == "user"]
    known = [intent for intent in asked if intent is not None]
    if not asked or len(known) < len(asked) or prompt[-1]["role"] != "user":
        raise BadFeedback(f"not a prompt of the demo world: {prompt_key(prompt)[:200]}")
    system = next((m["content"] for m in prompt if m["role"] == "system"), "")
    last = replace(known[-1], brief=phrases.SYSTEM_MESSAGES.get(system, False))
    if last.subject:
        return last
    places = [intent for intent in known if intent.attribute and intent.subject]
    if not places:
        raise BadFeedback(f"a follow-up needs an earlier question about a place: {prompt_key(prompt)[:200]}")
    return replace(last, kind=places[-1].kind, subject=places[-1].subject)


def question_of(text: str) -> Intent | None:
    """The intent of one user message, without the conversation around it; a follow-up has an empty subject."""
    return QUESTIONS.get(_undressed(text))


def draw_question(kind: str, draw: random.Random) -> str:
    return draw.choice(_BY_KIND[kind])


def draw_follow_up(draw: random.Random, *, after: str) -> str:
    """A question about "it" that asks for something else than the question before did."""
    attribute = draw.choice([name for name in phrases.ATTRIBUTES if name != after])
    return draw.choice(phrases.FOLLOW_UPS[attribute])


def dressed(question: str, draw: random.Random) -> str:
    """The question with the small words people put before and after it."""
    parts = (draw.choice(phrases.LEAD_INS), question, draw.choice(phrases.LEAD_OUTS))
    return " ".join(part for part in parts if part)


def _undressed(text: str) -> str:
    text = text.strip()
    lead_in = next((words for words in phrases.LEAD_INS if words and text.startswith(words + " ")), "")
    lead_out = next((words for words in phrases.LEAD_OUTS if words and text.endswith(" " + words)), "")
    return text.removeprefix(lead_in).removesuffix(lead_out).strip()


def prompt_key(prompt: Sequence[Mapping[str, str]]) -> str:
    """One string for one prompt: equal exactly when the messages are."""
    return json.dumps([[m["role"], m["content"]] for m in prompt])


def is_evaluation_prompt(prompt: Sequence[Mapping[str, str]]) -> bool:
    """Whether a prompt is kept for evaluation. A hash decides, so the two sides cannot meet whatever is drawn."""
    return hashlib.blake2b(prompt_key(prompt).encode(), digest_size=8).digest()[0] % EVALUATION_SHARE == 0


def _all_questions() -> dict[str, Intent]:
    table: dict[str, Intent] = {}
    for attribute, templates in phrases.PLACE_QUESTIONS.items():
        for template in templates:
            table |= {template.format(place=p): Intent("place", p, attribute) for p in phrases.PLACES}
            table |= {template.format(place=p): Intent("missing", p, attribute) for p in phrases.MISSING_PLACES}
        table |= {follow_up: Intent("place", "", attribute) for follow_up in phrases.FOLLOW_UPS[attribute]}
    for topic, words in phrases.ADVICE.items():
        for ask in words["ask"]:
            table |= {template.format(ask=ask): Intent("advice", topic) for template in phrases.ADVICE_QUESTIONS}
            table |= {
                template.format(ask=ask): Intent("advice", topic, tips=2) for template in phrases.TWO_TIPS_QUESTIONS
            }
    for topic, words in phrases.SMALL_TALK.items():
        table |= {say: Intent("small_talk", topic) for say in words["say"]}
    for topic, words in phrases.HARM.items():
        for ask in words["ask"]:
            table |= {template.format(ask=ask): Intent("harm", topic) for template in phrases.HARM_QUESTIONS}
    return table


#: Every question of the world, bare, and what it asks for.
QUESTIONS = _all_questions()

# Without the follow-ups, which need an earlier exchange.
_BY_KIND = {
    kind: [q for q, intent in QUESTIONS.items() if intent.kind == kind and intent.subject] for kind in KIND_SHARES
}
