"""Is this feedback fit to learn from? Numbers about it, and a verdict in words.

`check` only counts and judges; `likewise.cli.check` draws. Where a finding says CAUTION the data can be learnt from,
and something about it may mislead; NOT FIT means that learning from it as it is would be in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from likewise.data.tokens import tokenize_feedback
from likewise.estimates import auc, mean, proportion
from likewise.schema import (
    EMPTY_ANSWER_MEND,
    OPTIONAL,
    Content,
    Feedback,
    LabelRow,
    content_key,
    content_text,
    misspelt,
    plural,
)

Verdict = Literal["FIT", "FIT WITH CAUTION", "NOT FIT"]

# Where the words begin. They are rules of thumb, stated in docs/feedback.md, not results.
TOO_FEW, FEW = 10, 100  # rows of the smaller class, or pairs
RARE_CLASS = 0.05
MANY_DUPLICATES = 0.1
MANY_CONTRADICTIONS = 0.05
MANY_TRIMMED = 0.05
LENGTH_TELLS = 0.05  # the whole 95 % interval of the AUC lies further than this from 0.5
ONE_PROMPT_RULES = 0.2
MOST = 0.5


@dataclass(frozen=True)
class Finding:
    """One reason for the verdict, and what to do about it."""

    level: Literal["stop", "caution", "note"]
    text: str
    mend: str = ""


@dataclass(frozen=True)
class BadRows:
    """Rows with the same complaint; `rows` are the first few."""

    reason: str
    count: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Lengths:
    """How long texts are, in characters or tokens."""

    median: float
    p95: float
    longest: int


@dataclass(frozen=True)
class Classes:
    """Thumbs: how many up (label above 0.5), down (below), and without a side."""

    up: int
    down: int
    unsure: int
    probabilities: int

    @property
    def smaller(self) -> int:
        return min(self.up, self.down)


@dataclass(frozen=True)
class Prompts:
    """Distinct prompts. The last three count, for thumbs, those with ups only, downs only, and both."""

    distinct: int
    largest: int
    only_up: int | None = None
    only_down: int | None = None
    both: int | None = None


@dataclass(frozen=True)
class Pairs:
    """What pairs say beyond their number."""

    ties: int
    identical: int
    against_ratings: int


@dataclass(frozen=True)
class Ratings:
    """Grades and how often each was given (ten equal bins where there are more than twenty grades)."""

    histogram: dict[str, int]
    top_grade: float
    top_share: float
    without_difference: int


@dataclass(frozen=True)
class LengthBias:
    """How well length alone tells the better answer: 0.5 is chance, 1 the longer always wins, 0 the shorter.

    Thumbs: AUC of the length in characters, interval after DeLong. Pairs: share in which the chosen answer is longer,
    Wilson interval. Ratings: mean over prompts of the share of answer pairs in which the longer is rated higher.
    """

    score: float
    low: float
    high: float
    of: str

    @property
    def tells(self) -> bool:
        return self.low > 0.5 + LENGTH_TELLS or self.high < 0.5 - LENGTH_TELLS


@dataclass(frozen=True)
class Limits:
    """What these limits and this tokenizer do to the rows; row numbers are those of the source."""

    max_tokens: int
    max_prompt_tokens: int
    trimmed_prompts: int
    skipped: int
    skipped_rows: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class CheckReport:
    """Everything `likewise check` says."""

    source: str
    kind: str
    rows: int
    rows_read: int
    answers: int
    prompts: Prompts
    classes: Classes | None
    pairs: Pairs | None
    ratings: Ratings | None
    duplicates: int
    contradictions: int
    empty_answers: int
    bad_rows: tuple[BadRows, ...]
    unused_columns: tuple[str, ...]
    characters: dict[str, Lengths]
    tokens: dict[str, Lengths] | None
    length_bias: LengthBias | None
    limits: Limits | None
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        levels = {finding.level for finding in self.findings}
        return "NOT FIT" if "stop" in levels else "FIT WITH CAUTION" if "caution" in levels else "FIT"

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}


def check(
    feedback: Feedback,
    tokenizer: Any = None,
    *,
    max_tokens: int = 2048,
    max_prompt_tokens: int = 1536,
    as_chat: bool = False,
) -> CheckReport:
    """Look at feedback that was read with `skip_bad_rows`, and with a tokenizer also at what the limits do to it."""
    rows = feedback.rows
    tokens, limits = None, None
    if tokenizer is not None:
        tokens, limits = _token_lengths(feedback, tokenizer, max_tokens, max_prompt_tokens, as_chat)
    sides = [(name, content) for row in rows for name, content in _sides(row)]
    duplicates, contradictions = _repeats(rows)
    report = CheckReport(
        source=feedback.source,
        kind=feedback.kind,
        rows=len(rows),
        rows_read=feedback.rows_read or len(rows),
        answers=len(sides),
        prompts=_prompts(rows, labels=feedback.kind == "label"),
        classes=_classes(rows) if feedback.kind == "label" else None,
        pairs=_pairs(rows) if feedback.kind == "pair" else None,
        ratings=_ratings(rows) if feedback.kind == "rating" else None,
        duplicates=duplicates,
        contradictions=contradictions,
        empty_answers=sum(row.mend == EMPTY_ANSWER_MEND for row in feedback.skipped),
        bad_rows=_bad_rows(feedback),
        unused_columns=feedback.unused_columns,
        characters=_character_lengths(rows, sides),
        tokens=tokens,
        length_bias=_LENGTH_BIAS[feedback.kind](rows),
        limits=limits,
    )
    order = ("stop", "caution", "note")
    return replace(report, findings=tuple(sorted(_findings(report), key=lambda found: order.index(found.level))))


# --- counting --------------------------------------------------------------------------------------------------------


def _sides(row: Any) -> Iterator[tuple[str, Content]]:
    """The answers of a row under the name of their side."""
    if isinstance(row, LabelRow):
        yield ("up" if row.label > 0.5 else "down" if row.label < 0.5 else "unsure"), row.completion
    elif hasattr(row, "chosen"):
        yield "chosen", row.chosen
        yield "rejected", row.rejected
    else:
        for answer in row.completions:
            yield "answer", answer.completion


def _classes(rows: Sequence[LabelRow]) -> Classes:
    labels = np.array([row.label for row in rows])
    soft = int(((labels > 0) & (labels < 1)).sum())
    return Classes(int((labels > 0.5).sum()), int((labels < 0.5).sum()), int((labels == 0.5).sum()), soft)


def _prompts(rows: Sequence[Any], *, labels: bool) -> Prompts:
    seen = Counter(content_key(row.prompt) for row in rows)
    largest = max(seen.values())
    if not labels:
        return Prompts(len(seen), largest)
    up = {content_key(row.prompt) for row in rows if row.label > 0.5}
    down = {content_key(row.prompt) for row in rows if row.label < 0.5}
    return Prompts(len(seen), largest, len(up - down), len(down - up), len(up & down))


def _repeats(rows: Iterable[Any]) -> tuple[int, int]:
    """Rows that repeat an earlier one, and answers (or pairs) on which the votes contradict each other."""
    votes: dict[Any, Counter[Any]] = {}
    for row in rows:
        for subject, vote in _votes(row):
            votes.setdefault(subject, Counter())[vote] += 1
    duplicates = sum(count - 1 for counter in votes.values() for count in counter.values())
    contradictions = sum(len(counter.keys() - {None}) > 1 for counter in votes.values())
    return duplicates, contradictions


def _votes(row: Any) -> Iterator[tuple[Any, Any]]:
    """What was judged, and how; None for a judgement without a side."""
    prompt = content_key(row.prompt)
    if isinstance(row, LabelRow):
        yield (prompt, content_key(row.completion)), None if row.label == 0.5 else row.label > 0.5
    elif hasattr(row, "chosen"):
        chosen, rejected = content_key(row.chosen), content_key(row.rejected)
        first = hash(chosen) <= hash(rejected)
        yield (prompt, (chosen, rejected) if first else (rejected, chosen)), None if row.tie else first
    else:
        for answer in row.completions:
            yield (prompt, content_key(answer.completion)), answer.rating


def _pairs(rows: Iterable[Any]) -> Pairs:
    ties = identical = against = 0
    for row in rows:
        ties += row.tie
        identical += not row.tie and content_key(row.chosen) == content_key(row.rejected)
        rated = row.chosen_rating is not None and row.rejected_rating is not None
        against += rated and not row.tie and row.chosen_rating < row.rejected_rating
    return Pairs(ties, identical, against)


def _ratings(rows: Sequence[Any]) -> Ratings:
    grades = np.array([answer.rating for row in rows for answer in row.completions])
    top = float(grades.max())
    flat = sum(len({answer.rating for answer in row.completions}) < 2 for row in rows)
    return Ratings(_histogram(grades), top, float((grades == top).mean()), flat)


def _histogram(grades: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(grades, return_counts=True)
    if len(values) <= 20:
        return {f"{v:g}": int(c) for v, c in zip(values, counts, strict=True)}
    counts, edges = np.histogram(grades, bins=10)
    return {f"{a:.3g} to {b:.3g}": int(c) for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)}


def _bad_rows(feedback: Feedback) -> tuple[BadRows, ...]:
    by_reason: dict[str, list[int]] = {}
    for row in feedback.skipped:
        by_reason.setdefault(row.reason, []).append(row.row)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return tuple(BadRows(reason, len(rows), tuple(rows[:3])) for reason, rows in ordered)


# --- lengths ---------------------------------------------------------------------------------------------------------


def _lengths(values: Iterable[int] | np.ndarray) -> Lengths:
    array = np.asarray(list(values) if not isinstance(values, np.ndarray) else values)
    return Lengths(float(np.median(array)), float(np.percentile(array, 95)), int(array.max()))


def _character_lengths(rows: Iterable[Any], sides: Sequence[tuple[str, Content]]) -> dict[str, Lengths]:
    out = {"prompt": _lengths(_size(row.prompt) for row in rows), "answer": _lengths(_size(c) for _, c in sides)}
    names = dict.fromkeys(name for name, _ in sides)
    if len(names) > 1:
        out |= {name: _lengths(_size(c) for n, c in sides if n == name) for name in names}
    return out


def _size(content: Content) -> int:
    return len(content_text(content))


def _token_lengths(
    feedback: Feedback, tokenizer: Any, max_tokens: int, max_prompt_tokens: int, as_chat: bool
) -> tuple[dict[str, Lengths], Limits]:
    """Lengths before anything is trimmed, and what the limits would trim and leave out."""
    options: dict[str, Any] = {"long_completions": "skip", "as_chat": as_chat}
    cut = tokenize_feedback(feedback, tokenizer, max_tokens=max_tokens, max_prompt_tokens=max_prompt_tokens, **options)
    trimmed, left_out = set(cut.trimmed_prompts), {index for index, _ in cut.skipped}
    whole = np.array([int(index) not in trimmed for index in cut.row], dtype=bool)
    prompts = [cut.prompt_lengths[cut.first[:-1]][whole]]
    answers = [cut.completion_lengths]
    for affected in (trimmed, left_out):
        if not affected:
            continue
        some = replace(feedback, rows=[feedback.rows[index] for index in sorted(affected)])
        uncut = tokenize_feedback(some, tokenizer, max_tokens=2**30, max_prompt_tokens=2**29, **options)
        prompts.append(uncut.prompt_lengths[uncut.first[:-1]])
        if affected is left_out:
            answers.append(uncut.completion_lengths)
    lengths = {"prompt": _lengths(np.concatenate(prompts)), "answer": _lengths(np.concatenate(answers))}
    examples = tuple((feedback.rows[index].row or index + 1, reason) for index, reason in cut.skipped[:3])
    return lengths, Limits(max_tokens, max_prompt_tokens, len(trimmed), len(left_out), examples)


# --- does length tell the better answer? -----------------------------------------------------------------------------


def _label_bias(rows: Sequence[LabelRow]) -> LengthBias | None:
    sided = [row for row in rows if row.label != 0.5]
    found = auc(np.array([_size(row.completion) for row in sided]), np.array([row.label > 0.5 for row in sided]))
    if found is None:
        return None
    return LengthBias(found.value, found.low, found.high, "AUC of an answer's length for its thumb")


def _pair_bias(rows: Iterable[Any]) -> LengthBias | None:
    wins = [_longer(row.chosen, row.rejected) for row in rows if not row.tie]
    if len(wins) < 2:
        return None
    found = proportion(sum(wins), len(wins))
    return LengthBias(found.value, found.low, found.high, "share of pairs in which the chosen answer is the longer")


def _rating_bias(rows: Iterable[Any]) -> LengthBias | None:
    shares = []
    for row in rows:
        answers = row.completions[:1000]  # every answer meets every other
        grade = np.array([answer.rating for answer in answers])
        size = np.array([_size(answer.completion) for answer in answers])
        higher = grade[:, None] > grade
        if higher.any():
            longer = (size[:, None] > size) + 0.5 * (size[:, None] == size)
            shares.append(float(longer[higher].mean()))
    if len(shares) < 2:
        return None
    found = mean(shares)
    low, high = max(0.0, found.low), min(1.0, found.high)
    meaning = "share of answer pairs in which the longer is rated higher, mean over prompts"
    return LengthBias(found.value, low, high, meaning)


_LENGTH_BIAS: dict[str, Callable[[Any], LengthBias | None]] = {
    "label": _label_bias,
    "pair": _pair_bias,
    "rating": _rating_bias,
}


def _longer(answer: Content, other: Content) -> float:
    a, b = _size(answer), _size(other)
    return float(a > b) + 0.5 * (a == b)


# --- the verdict -----------------------------------------------------------------------------------------------------


def _findings(report: CheckReport) -> Iterator[Finding]:
    yield from _on_bad_rows(report)
    yield from {"label": _on_labels, "pair": _on_pairs, "rating": _on_ratings}[report.kind](report)
    yield from _on_repeats(report)
    yield from _on_length(report)
    yield from _on_limits(report)
    for column in report.unused_columns:
        if meant := misspelt(column, OPTIONAL[report.kind]):  # type: ignore[index]
            yield Finding(
                "caution", f"Column {column!r} is not used; was {meant!r} meant?", f"--columns {meant}={column}"
            )


def _on_bad_rows(report: CheckReport) -> Iterator[Finding]:
    count = sum(bad.count for bad in report.bad_rows)
    if not count:
        return
    level: Literal["stop", "caution"] = "stop" if count > MOST * report.rows_read else "caution"
    kinds = "" if len(report.bad_rows) < 2 else f", for {len(report.bad_rows)} reasons"
    yield Finding(
        level,
        f"{plural(count, 'row')} of {report.rows_read:,} cannot be used{kinds}.",
        "Mend them, or go on without them with --skip-bad-rows.",
    )


def _on_labels(report: CheckReport) -> Iterator[Finding]:
    classes, prompts = report.classes, report.prompts
    assert classes is not None
    if not classes.smaller:
        side, other = ("up", "down") if classes.up else ("down", "up")
        aim = "away from these answers" if side == "down" else "towards these answers"
        yield Finding(
            "stop",
            f"Every thumb is {side}: nothing tells a good answer from a bad one. A model could only be pushed {aim}.",
            f"Add thumbs {other}. To go on regardless: --allow-one-class"
            + (", or --objective sft to imitate the answers." if side == "up" else "."),
        )
        return
    name = "ups" if classes.up < classes.down else "downs"
    few = plural(classes.smaller, name[:-1])
    share = classes.smaller / (classes.up + classes.down)
    if classes.smaller < TOO_FEW:
        yield Finding("stop", f"Only {few}: too few to learn from.", "Collect more feedback.")
    elif classes.smaller < FEW:
        yield Finding(
            "caution",
            f"Only {few}: expect a noisy reward shift and a wide interval on any result.",
            "Collect more feedback, or train for less (fewer epochs, a larger beta).",
        )
    if share < RARE_CLASS and classes.smaller >= TOO_FEW:
        yield Finding(
            "caution",
            f"{name} are {share:.1%} of the thumbs: each of them weighs as much as {1 / share - 1:.0f} others.",
            "Balancing weights are capped (--class-weight-cap); a noisy thumb in the rare class counts heavily.",
        )
    if classes.unsure:
        yield Finding("note", f"{plural(classes.unsure, 'label')} of exactly 0.5 take no side.")
    one_sided = (prompts.only_up or 0) + (prompts.only_down or 0)
    if report.rows >= 3 * prompts.distinct and one_sided > 0.8 * prompts.distinct:
        yield Finding(
            "caution",
            f"Prompts are asked {report.rows / prompts.distinct:.1f} times each, and {one_sided / prompts.distinct:.0%}"
            " of them get thumbs of one side only: the prompt, more than the answer, decides the thumb.",
            "Balance the two sides per prompt if you can.",
        )
    elif prompts.both == 0:
        yield Finding("note", "No prompt has both an up and a down: objectives for thumbs fit, pairs cannot be made.")


def _on_pairs(report: CheckReport) -> Iterator[Finding]:
    pairs = report.pairs
    assert pairs is not None
    telling = report.rows - pairs.ties - pairs.identical
    if telling < TOO_FEW:
        yield Finding(
            "stop", f"Only {plural(telling, 'pair')} with a better and a worse answer: too few to learn from."
        )
    elif telling < FEW:
        yield Finding("caution", f"Only {plural(telling, 'pair')}: expect a wide interval on any result.")
    if pairs.identical:
        yield Finding(
            "caution", f"{plural(pairs.identical, 'pair')} with two equal answers teach nothing.", "Leave them out."
        )
    if pairs.against_ratings:
        yield Finding(
            "caution",
            f"In {plural(pairs.against_ratings, 'pair')} the chosen answer has the lower rating.",
            "See whether chosen and rejected are swapped there.",
        )
    if pairs.ties:
        yield Finding("note", f"{plural(pairs.ties, 'tie')}: most objectives leave them out.")


def _on_ratings(report: CheckReport) -> Iterator[Finding]:
    ratings = report.ratings
    assert ratings is not None
    if len(ratings.histogram) < 2:
        yield Finding("stop", f"Every rating is {ratings.top_grade:g}: nothing tells a good answer from a bad one.")
        return
    if report.answers < 2 * TOO_FEW:
        yield Finding("stop", f"Only {plural(report.answers, 'rated answer')}: too few to learn from.")
    rare = min(ratings.top_share, 1 - ratings.top_share)
    if rare < RARE_CLASS:
        yield Finding(
            "caution",
            f"The top grade ({ratings.top_grade:g}), which counts as a thumb up, has {ratings.top_share:.1%} of the "
            "answers.",
            "Choose another limit for thumbs with --rating-threshold.",
        )
    if ratings.without_difference:
        share = ratings.without_difference / report.rows
        yield Finding(
            "caution" if share > MOST else "note",
            f"{plural(ratings.without_difference, 'prompt')} of {report.rows:,} "
            f"{'has' if ratings.without_difference == 1 else 'have'} no two answers with different ratings, "
            "so no pairs come from there.",
        )


def _on_repeats(report: CheckReport) -> Iterator[Finding]:
    thing = "pair" if report.kind == "pair" else "answer"
    if report.contradictions:
        judged = report.rows if report.kind == "pair" else report.answers
        many = report.contradictions > MANY_CONTRADICTIONS * judged
        yield Finding(
            "caution" if many else "note",
            f"{plural(report.contradictions, thing)} got votes that contradict each other.",
            "Merge them into one row with the share of ups as its label." if many and report.kind == "label" else "",
        )
    if report.duplicates:
        many = report.duplicates > MANY_DUPLICATES * report.answers
        yield Finding(
            "caution" if many else "note",
            f"{plural(report.duplicates, 'vote')} repeat{'s' if report.duplicates == 1 else ''} another one exactly.",
            "If they are copies rather than votes of several people, leave them out." if many else "",
        )
    if report.rows >= FEW and report.prompts.largest > ONE_PROMPT_RULES * report.rows:
        share = report.prompts.largest / report.rows
        yield Finding("caution", f"One prompt has {share:.0%} of all rows.", "Keep fewer rows of it.")


def _on_length(report: CheckReport) -> Iterator[Finding]:
    bias = report.length_bias
    if bias is not None and bias.tells:
        which = "longer" if bias.score > 0.5 else "shorter"
        yield Finding(
            "caution",
            f"Length alone tells much: people like the {which} answer ({bias.of} {bias.score:.2f}, 95 % "
            f"{bias.low:.2f} to {bias.high:.2f}; 0.5 is chance). A model may learn to be {which}, not better.",
            "Watch the length of answers after training, and judge with length control.",
        )


def _on_limits(report: CheckReport) -> Iterator[Finding]:
    limits = report.limits
    if limits is None:
        return
    if limits.skipped:
        level: Literal["stop", "caution"] = "stop" if limits.skipped > MOST * report.rows else "caution"
        yield Finding(
            level,
            f"{plural(limits.skipped, 'row')} of {report.rows:,} "
            f"{'has an answer' if limits.skipped == 1 else 'have answers'} that cannot fit in "
            f"{limits.max_tokens:,} tokens, and an answer is never cut.",
            "Raise --max-tokens, or leave them out with --long-completions skip.",
        )
    if limits.trimmed_prompts:
        many = limits.trimmed_prompts > MANY_TRIMMED * report.rows
        yield Finding(
            "caution" if many else "note",
            f"{plural(limits.trimmed_prompts, 'row')} of {report.rows:,} would have the oldest turns of the prompt cut "
            f"off to fit in {limits.max_prompt_tokens:,} prompt tokens and {limits.max_tokens:,} in all.",
            "Raise --max-prompt-tokens and --max-tokens." if many else "",
        )
