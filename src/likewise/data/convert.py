"""One kind of feedback from another.

Each conversion is a function from rows to rows that also says how many pieces of feedback it could not use;
`convert` picks the one that leads where an objective needs to go, and says in a line what it did. A label counts as
up above 0.5; one of exactly 0.5 takes no side. All of them keep the order of the rows they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, cycle, pairwise, product
from typing import Any, Literal, NamedTuple, get_args

from likewise.errors import BadConfig, BadFeedback, nearest
from likewise.schema import Answer, Feedback, LabelRow, PairRow, RatingRow, content_key, plural

PairsFromRatings = Literal["best_worst", "adjacent", "all"]
PairsFromLabels = Literal["matched", "all"]
Target = Literal["label", "pair", "rating", "group"]


class Converted(NamedTuple):
    """The rows made, and how many pairs, answers or prompts said nothing in the new kind."""

    rows: list[Any]
    dropped: int


def ratings_to_labels(rows: Sequence[RatingRow], threshold: float | None = None) -> Converted:
    """A thumb for every rated answer: up from `threshold`, by default from the top grade found anywhere in `rows`.

    Source: arXiv:2404.04656: helpfulness 4 of 0-4 is up, 3 and below is down.
    """
    if threshold is None:
        threshold = top_grade(rows)
    made = [
        LabelRow(row.prompt, a.completion, float(a.rating >= threshold), row.weight, _part(row.id, n), row.row)
        for row in rows
        for n, a in enumerate(row.completions, 1)
    ]
    return Converted(made, 0)


def top_grade(rows: Iterable[RatingRow]) -> float:
    """The highest rating in `rows`."""
    return max(answer.rating for row in rows for answer in row.completions)


def ratings_to_pairs(rows: Iterable[RatingRow], how: PairsFromRatings = "best_worst") -> Converted:
    """Pairs of answers to one prompt with different ratings, which the pair keeps.

    `how`: the best with the worst (the first of each, where several share the grade); answers next to each other in
    rank; or all. Pairs with equal ratings are dropped and counted, and so is a prompt with a single answer.
    """
    made, dropped = [], 0
    for row in rows:
        ranked = sorted(row.completions, key=lambda a: -a.rating)
        candidates = list(_PAIRINGS[how](ranked))
        different = [(best, worst) for best, worst in candidates if best.rating > worst.rating]
        dropped += max(1, len(candidates)) - len(different)
        for n, (best, worst) in enumerate(different, 1):
            name = row.id if how == "best_worst" else _part(row.id, n)
            pair = PairRow(row.prompt, best.completion, worst.completion, best.rating, worst.rating)
            made.append(replace(pair, weight=row.weight, id=name, row=row.row))
    return Converted(made, dropped)


def _best_worst(ranked: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    if len(ranked) > 1:
        yield ranked[0], next(answer for answer in ranked if answer.rating == ranked[-1].rating)


_PAIRINGS: dict[str, Callable[[Sequence[Answer]], Iterable[tuple[Answer, Answer]]]] = {
    "best_worst": _best_worst,
    "adjacent": pairwise,
    "all": lambda ranked: combinations(ranked, 2),
}


def pairs_to_labels(rows: Iterable[PairRow]) -> Converted:
    """Two thumbs for every pair: the chosen answer up, the rejected one down. Ties are dropped and counted."""
    made, dropped = [], 0
    for row in rows:
        if row.tie:
            dropped += 1
            continue
        made.append(LabelRow(row.prompt, row.chosen, 1.0, row.weight, _part(row.id, "chosen"), row.row))
        made.append(LabelRow(row.prompt, row.rejected, 0.0, row.weight, _part(row.id, "rejected"), row.row))
    return Converted(made, dropped)


def labels_to_pairs(rows: Iterable[LabelRow], how: PairsFromLabels = "matched") -> Converted:
    """Pairs of a liked and a disliked answer to one prompt; `dropped` counts the prompts that give none.

    `how`: "matched" pairs the first up with the first down and so on, starting over on the shorter side, so that
    every answer is used and a prompt that everybody asks does not outgrow the rest; "all" takes every up with every
    down. A pair of equal answers says nothing and is left out. Its weight is the mean of the two; labels that are
    probabilities stay with it as ratings.
    """
    made, dropped = [], 0
    for group in _by_prompt(rows):
        ups = [row for row in group if row.label > 0.5]
        downs = [row for row in group if row.label < 0.5]
        sides: Iterable[tuple[LabelRow, LabelRow]] = product(ups, downs)
        if how == "matched":
            sides = zip(ups, cycle(downs)) if len(ups) >= len(downs) else zip(cycle(ups), downs)
        pairs = [_pair_of(up, down) for up, down in sides if content_key(up.completion) != content_key(down.completion)]
        made += pairs
        dropped += not pairs
    return Converted(made, dropped)


def _pair_of(up: LabelRow, down: LabelRow) -> PairRow:
    soft = not {up.label, down.label} <= {0.0, 1.0}
    ratings = (up.label, down.label) if soft else (None, None)
    name = f"{up.id}/{down.id}" if up.id is not None and down.id is not None else None
    pair = PairRow(up.prompt, up.completion, down.completion, *ratings)
    return replace(pair, weight=(up.weight + down.weight) / 2, id=name, row=up.row)


def pairs_to_ratings(rows: Iterable[PairRow]) -> Converted:
    """Every pair as a group of two, with the ratings it came with, or else 1 and 0 (both 0.5 for a tie)."""
    made = []
    for row in rows:
        chosen, rejected = row.chosen_rating, row.rejected_rating
        if chosen is None or rejected is None:
            chosen, rejected = (0.5, 0.5) if row.tie else (1.0, 0.0)
        answers = (Answer(row.chosen, chosen), Answer(row.rejected, rejected))
        made.append(RatingRow(row.prompt, answers, row.weight, row.id, row.row))
    return Converted(made, 0)


def labels_to_ratings(rows: Iterable[LabelRow]) -> Converted:
    """Thumbs that share a prompt as one group, rated by their label; `dropped` counts prompts with one answer."""
    made, dropped = [], 0
    for group in _by_prompt(rows):
        if len(group) < 2:
            dropped += 1
            continue
        weight = sum(row.weight for row in group) / len(group)
        answers = tuple(Answer(row.completion, row.label) for row in group)
        made.append(RatingRow(group[0].prompt, answers, weight, group[0].id, group[0].row))
    return Converted(made, dropped)


def _by_prompt(rows: Iterable[LabelRow]) -> Iterable[list[LabelRow]]:
    groups: dict[Any, list[LabelRow]] = {}
    for row in rows:
        groups.setdefault(content_key(row.prompt), []).append(row)
    return groups.values()


def _part(name: str | None, part: int | str) -> str | None:
    return None if name is None else f"{name}/{part}"


# --- where an objective wants to go ----------------------------------------------------------------------------------


def convert(
    feedback: Feedback, to: Target, *, threshold: float | None = None, how: str | None = None
) -> tuple[Feedback, str]:
    """`feedback` as another kind ("group" is "rating"), and one line that says what was done ('' for nothing).

    `threshold` belongs to ratings that become labels, `how` to whatever becomes pairs.
    Raises: BadFeedback where no row can be made, BadConfig for an option that does not belong to the conversion.
    """
    if to not in get_args(Target):
        raise BadConfig(f"--to {to}: expected label, pair or rating{nearest(to, get_args(Target))}")
    target = "rating" if to == "group" else to
    _refuse_stray_options(feedback.kind, target, threshold, how)
    if feedback.kind == target:
        return feedback, ""
    made, note = _STEPS[feedback.kind, target](feedback, threshold, how)
    if not made.rows:
        raise _nothing_made(feedback, target)
    return replace(feedback, kind=target, rows=made.rows), note


def _refuse_stray_options(kind: str, target: str, threshold: float | None, how: str | None) -> None:
    if threshold is not None and (kind, target) != ("rating", "label"):
        raise BadConfig(f"--threshold turns ratings into labels; here {kind} rows become {target} rows.")
    allowed = {"rating": get_args(PairsFromRatings), "label": get_args(PairsFromLabels)}.get(kind, ())
    if how is not None and (target != "pair" or how not in allowed):
        choice = f"expected {', '.join(allowed)}{nearest(how, allowed)}" if target == "pair" and allowed else ""
        problem = choice or f"it says how to make pairs; here {kind} rows become {target} rows."
        raise BadConfig(f"--how {how}: {problem}")


def _from_ratings_labels(feedback: Feedback, threshold: float | None, how: str | None) -> tuple[Converted, str]:
    top = top_grade(feedback.rows)
    grade = top if threshold is None else threshold
    made = ratings_to_labels(feedback.rows, grade)
    ups = sum(row.label > 0.5 for row in made.rows)
    which = ", the top grade" if threshold is None else ""
    return made, f"{len(made.rows):,} rated answers → thumbs: {ups:,} up (rating ≥ {grade:g}{which}), the others down"


def _from_ratings_pairs(feedback: Feedback, threshold: float | None, how: Any) -> tuple[Converted, str]:
    made = ratings_to_pairs(feedback.rows, how or "best_worst")
    words = {"best_worst": "best and worst", "adjacent": "neighbours in rank", "all": "all"}[how or "best_worst"]
    left_out = f"; {made.dropped:,} without two different ratings left out" if made.dropped else ""
    return made, f"{plural(len(feedback.rows), 'rated prompt')} → {plural(len(made.rows), 'pair')} ({words}){left_out}"


def _from_pairs_labels(feedback: Feedback, threshold: float | None, how: str | None) -> tuple[Converted, str]:
    made = pairs_to_labels(feedback.rows)
    left_out = f"; {plural(made.dropped, 'tie')} left out" if made.dropped else ""
    return made, f"{plural(len(feedback.rows), 'pair')} → {len(made.rows):,} thumbs (both sides){left_out}"


def _from_labels_pairs(feedback: Feedback, threshold: float | None, how: Any) -> tuple[Converted, str]:
    made = labels_to_pairs(feedback.rows, how or "matched")
    left_out = f"; {plural(made.dropped, 'prompt')} without both an up and a down left out" if made.dropped else ""
    return (
        made,
        f"{plural(len(feedback.rows), 'thumb')} → {plural(len(made.rows), 'pair')} ({how or 'matched'}){left_out}",
    )


def _from_pairs_ratings(feedback: Feedback, threshold: float | None, how: str | None) -> tuple[Converted, str]:
    made = pairs_to_ratings(feedback.rows)
    return made, f"{plural(len(feedback.rows), 'pair')} → {plural(len(made.rows), 'group')} of two"


def _from_labels_ratings(feedback: Feedback, threshold: float | None, how: str | None) -> tuple[Converted, str]:
    made = labels_to_ratings(feedback.rows)
    left_out = f"; {plural(made.dropped, 'prompt')} with a single answer left out" if made.dropped else ""
    return (
        made,
        f"{plural(len(feedback.rows), 'thumb')} → {plural(len(made.rows), 'group')} by prompt{left_out}",
    )


_STEPS: dict[tuple[str, str], Callable[[Feedback, float | None, Any], tuple[Converted, str]]] = {
    ("rating", "label"): _from_ratings_labels,
    ("rating", "pair"): _from_ratings_pairs,
    ("pair", "label"): _from_pairs_labels,
    ("label", "pair"): _from_labels_pairs,
    ("pair", "rating"): _from_pairs_ratings,
    ("label", "rating"): _from_labels_ratings,
}


def _nothing_made(feedback: Feedback, target: str) -> BadFeedback:
    source, count = feedback.source, len(feedback)
    match feedback.kind, target:
        case "label", "pair":
            prompts = len({content_key(row.prompt) for row in feedback.rows})
            return BadFeedback(
                f"{source}: its {count:,} thumbs cannot make pairs: none of its {prompts:,} prompts has both an answer "
                "that was liked and another that was not.\n"
                "Learn from the thumbs as they are (--objective bco, kto or bce), "
                "or give feedback with the columns prompt, chosen, rejected."
            )
        case "label", "rating":
            return BadFeedback(
                f"{source}: its {count:,} thumbs cannot be grouped: no two of them share a prompt.\n"
                "Learn from the thumbs as they are (--objective bco, kto or bce), or give several answers per prompt."
            )
        case "rating", "pair":
            return BadFeedback(
                f"{source}: its ratings cannot make pairs: no prompt has two answers with different ratings.\n"
                "Learn from single answers (--objective bco), or give several rated answers per prompt."
            )
    return BadFeedback(f"{source}: all {count:,} pairs are ties, and a tie is no thumb.\nGive pairs with a winner.")
