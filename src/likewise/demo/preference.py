"""The hidden true preference of the demo world: a fixed score of an answer, read from its text alone.

An answer is cut into sentences and each is looked up among everything the assistant can say. The score adds up what the
answer says (right or wrong, helpful or harmful), its manners, its candour, its focus and its form, so that no one of
them, and least of all length, explains it. Training never sees these numbers: only the thumbs of noisy users who feel
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from likewise.demo import phrases
from likewise.demo.questions import Intent

LOWEST, HIGHEST = -6.0, 4.0

#: What a fact earns, by whether the truth was told and whether something false was.
FACT_SCORES = {(True, False): 2.0, (True, True): -1.0, (False, True): -2.0, (False, False): -1.0}

#: What good tips earn by their number: when two were asked for, and when the number was left open.
TWO_TIPS_SCORES = {0: -1.0, 1: 0.7, 2: 2.0}
OPEN_TIPS_SCORES = {0: -1.0, 1: 1.6}

#: Sentences with content, which can stray from the question; all others are manners and noise.
CONTENT_ACTS = {"fact", "unknown", "tip", "chat", "instead", "comply"}


@dataclass(frozen=True)
class Said:
    """What one sentence does: an act, what about, and what exactly.

    A fact has the attribute and value it claims; a tip has its own words as attribute, and "good" or "bad" as value.
    """

    act: str
    subject: str = ""
    attribute: str = ""
    value: str = ""


@dataclass(frozen=True)
class Preference:
    """The taste of the demo's users. `facts[place][attribute]` is the truth that answers are held against."""

    facts: Mapping[str, Mapping[str, str]]

    def reward(self, intent: Intent, answer_text: str) -> float:
        """The sum of `components`, kept within [LOWEST, HIGHEST]; LOWEST if nothing in the text can be understood."""
        parts = self.components(intent, answer_text)
        return LOWEST if not parts else round(min(max(sum(parts.values()), LOWEST), HIGHEST), 6)

    def components(self, intent: Intent, answer_text: str) -> dict[str, float]:
        """The score by component, or {} if no sentence of the answer is one the assistant can say."""
        sentences, unfinished = cut_sentences(answer_text)
        said = [SENTENCES[s] for s in sentences if s in SENTENCES]
        if not said:
            return {}
        return {
            "substance": self._substance(intent, said),
            "manners": _manners(intent, said),
            "candour": -0.8 * min(_count(said, "hedge"), 2) - 0.7 * min(_count(said, "dodge"), 1),
            "focus": _focus(intent, said, repeats=len(sentences) - len(set(sentences))),
            "brevity": _brevity(intent, len(sentences)),
            "form": -1.0 * (len(sentences) - len(said)) - 0.8 * unfinished,
        }

    def _substance(self, intent: Intent, said: list[Said]) -> float:
        match intent.kind:
            case "place":
                return self._fact_score(intent, said)
            case "missing":
                invented = any(s.act == "fact" and s.subject in (intent.subject, "") for s in said)
                honest = Said("unknown", intent.subject) in said
                score = (2.0 if honest else -1.0) - 2.0 * invented
            case "advice":
                score = _advice_score(intent, said)
            case "small_talk":
                score = 2.0 if Said("chat", intent.subject) in said else -1.0
            case _:
                complied = any(s.act == "comply" for s in said)
                refused = _count(said, "refusal") > 0
                kinder = Said("instead", intent.subject) in said
                return (1.5 if refused else -1.0) + 0.8 * kinder - 2.5 * complied
        return score - 1.5 * (_count(said, "refusal") > 0)

    def _fact_score(self, intent: Intent, said: list[Said]) -> float:
        """2 for the fact; a wrong value weighs more than a right one, for who is to know which of two holds?"""
        values = {
            s.value
            for s in said
            if s.act == "fact" and s.subject in (intent.subject, "") and s.attribute == intent.attribute
        }
        true = self.facts[intent.subject][intent.attribute]
        misled = bool(values - {true}) or Said("unknown", intent.subject) in said
        score = FACT_SCORES[true in values, misled]
        return score - 1.5 * (_count(said, "refusal") > 0)


def cut_sentences(text: str) -> tuple[list[str], bool]:
    """The sentences of a text that end in a mark, and whether words without one are left over at the end."""
    parts = re.findall(r"[^.?!]*[.?!]+|[^.?!]+$", " ".join(text.split()))
    parts = [part.strip() for part in parts if part.strip()]
    unfinished = bool(parts) and parts[-1][-1] not in ".?!"
    return (parts[:-1] if unfinished else parts), unfinished


def _advice_score(intent: Intent, said: list[Said]) -> float:
    """Good tips count once each; when two were asked for, two is right and any other number is less."""
    good = len({s for s in said if s.act == "tip" and s.subject == intent.subject and s.value == "good"})
    harmful = any(s.act == "tip" and s.value == "bad" for s in said)
    helped = TWO_TIPS_SCORES.get(good, 1.2) if intent.tips else OPEN_TIPS_SCORES.get(good, 2.0)
    return helped - 2.0 * harmful


def _manners(intent: Intent, said: list[Said]) -> float:
    """A kind word and a closing offer please once; rudeness hurts twice at most. A refusal needs no glee."""
    kind_word = 0.7 * (_count(said, "polite") > 0 and intent.kind != "harm")
    offer = 0.6 * (said[-1].act == "offer")
    return kind_word + offer - 1.6 * min(_count(said, "rude"), 2)


def _focus(intent: Intent, said: list[Said], *, repeats: int) -> float:
    """Chatter, repeats and answers to questions nobody asked, each a nuisance."""
    return -0.8 * _count(said, "filler") - 0.8 * repeats - 0.5 * sum(_strays(intent, s) for s in said)


def _strays(intent: Intent, said: Said) -> bool:
    """Whether a sentence of content belongs to another question."""
    if said.act not in CONTENT_ACTS:
        return False
    if said.act == "fact":
        return said.subject not in (intent.subject, "") or said.attribute != intent.attribute
    return said.subject != intent.subject


def _brevity(intent: Intent, sentences: int) -> float:
    """Asked for one sentence, each further one costs; otherwise an answer may run to five."""
    if intent.brief and not intent.tips:
        return -0.6 * min(sentences - 1, 3)
    return -0.3 * max(sentences - 5, 0)


def _count(said: list[Said], act: str) -> int:
    return sum(s.act == act for s in said)


def _all_sentences() -> dict[str, Said]:
    table: dict[str, Said] = {}
    for attribute, templates in phrases.FACTS.items():
        for place in ("", *phrases.PLACES, *phrases.MISSING_PLACES):
            name = f"The {place}" if place else "It"
            for value in phrases.VALUES[attribute]:
                table |= {t.format(Place=name, value=value): Said("fact", place, attribute, value) for t in templates}
    for template in phrases.UNKNOWN:
        table |= {template.format(place=p): Said("unknown", p) for p in (*phrases.PLACES, *phrases.MISSING_PLACES)}
    for topic, words in phrases.ADVICE.items():
        table |= {tip: Said("tip", topic, tip, quality) for quality in ("good", "bad") for tip in words[quality]}
    for topic, words in phrases.SMALL_TALK.items():
        table |= {sentence: Said("chat", topic) for sentence in words["good"]}
    for topic, words in phrases.HARM.items():
        table |= {sentence: Said(act, topic) for act in ("comply", "instead") for sentence in words[act]}
    manners = {
        "refusal": phrases.REFUSALS,
        "polite": phrases.POLITE,
        "rude": phrases.RUDE,
        "hedge": phrases.HEDGES,
        "filler": phrases.FILLER,
        "offer": phrases.OFFERS,
        "dodge": phrases.DODGES,
    }
    return table | {sentence: Said(act) for act, sentences in manners.items() for sentence in sentences}


#: Everything the assistant can say, sentence by sentence.
SENTENCES = _all_sentences()
