"""The columns of a feedback row and their one checker.

A raw row is a dict as it stands in a file; `check_row` turns it into a `LabelRow`, `PairRow` or `RatingRow`, or
raises `BadRow`. Nothing after this module looks at a raw row again.

What comes out is regular: a prompt is text or a list of messages; the completions of a chat prompt are lists of
messages too; every message has a known `role` and `content` that is text.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from likewise.errors import BadConfig, BadFeedback, BadRow, nearest

Kind = Literal["label", "pair", "rating"]
Message = dict[str, Any]
Content = str | list[Message]

REQUIRED: dict[Kind, tuple[str, ...]] = {
    "label": ("prompt", "completion", "label"),
    "pair": ("prompt", "chosen", "rejected"),
    "rating": ("prompt", "completions"),
}
FLAT_RATING = ("prompt", "completion", "rating")
OPTIONAL: dict[Kind, tuple[str, ...]] = {
    "label": ("weight", "id"),
    "pair": ("chosen_rating", "rejected_rating", "tie", "weight", "id"),
    "rating": ("weight", "id"),
}
COLUMNS = tuple(dict.fromkeys(name for part in (*REQUIRED.values(), FLAT_RATING, *OPTIONAL.values()) for name in part))
ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One answer and the thumb it got: `label` is the probability that the answer is desirable, mostly 0 or 1."""

    prompt: Content
    completion: Content
    label: float
    weight: float = 1.0
    id: str | None = None
    row: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two answers to one prompt, `chosen` preferred to `rejected` (neither, if `tie`)."""

    prompt: Content
    chosen: Content
    rejected: Content
    chosen_rating: float | None = None
    rejected_rating: float | None = None
    tie: bool = False
    weight: float = 1.0
    id: str | None = None
    row: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the rated answers to a prompt."""

    completion: Content
    rating: float


@dataclass(frozen=True, slots=True)
class RatingRow:
    """A prompt with its rated answers."""

    prompt: Content
    completions: tuple[Answer, ...]
    weight: float = 1.0
    id: str | None = None
    row: int = field(default=0, compare=False)


Row = LabelRow | PairRow | RatingRow


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row left out, why, and what stood there."""

    row: int
    reason: str
    found: Any = None
    field: str | None = None
    mend: str = ""


@dataclass(frozen=True)
class Feedback:
    """Rows of one kind, where they came from, and what was left out on the way.

    `unused_columns` are the columns of the source that likewise does not read; `rows_read` counts good and bad rows
    of the source, which is more than `len(feedback)` where flat ratings were grouped.
    """

    kind: Kind
    rows: list[Any]
    source: str = "the given rows"
    skipped: list[SkippedRow] = field(default_factory=list)
    unused_columns: tuple[str, ...] = ()
    rows_read: int = 0

    def __len__(self) -> int:
        return len(self.rows)


def content_key(content: Content) -> Hashable:
    """What two equal prompts or answers share; a text and a chat are never equal."""
    if isinstance(content, str):
        return content
    return tuple(
        (m["role"], m["content"]) if len(m) == 2 else json.dumps(m, sort_keys=True, default=str) for m in content
    )


def content_text(content: Content) -> str:
    """The words of a prompt or answer, without roles or template."""
    return content if isinstance(content, str) else "\n".join(m["content"] for m in content)


# --- which kind ------------------------------------------------------------------------------------------------------


def kind_of(columns: Iterable[str]) -> Kind | None:
    """The kind whose required columns are all there, or None. A label wins over a rating beside it."""
    have = set(columns)
    for kind, required in REQUIRED.items():
        if have.issuperset(required):
            return kind
    return "rating" if have.issuperset(FLAT_RATING) else None


def no_kind(source: str, columns: Sequence[str]) -> BadFeedback:
    """The error for columns that make up no kind: says which column is missing from the kind that comes closest."""
    shapes = [*REQUIRED.items(), ("rating", FLAT_RATING)]
    # Columns found count most; among equals, the shape for which a misspelt name is at hand.
    kind, required = max(
        shapes, key=lambda s: sum(1.0 if c in columns else 0.4 * bool(_stand_in(c, s[1], columns)) for c in s[1])
    )
    have = ", ".join(map(repr, columns)) or "none"
    if sum(bool(c in columns or _stand_in(c, required, columns)) for c in required) < 2:
        shapes_text = "\n".join(f"  {name:7}{', '.join(shape)}" for name, shape in shapes)
        return BadFeedback(
            f"{source}: the columns ({have}) make up no kind of feedback. Expected one of\n{shapes_text}\n"
            + (_MEND_CONVERSATION if {"messages", "conversations"} & set(columns) else "")
            + "Rename columns with --columns prompt=question,completion=answer."
        )
    missing = [c for c in required if c not in columns]
    renames = {c: s for c in missing if (s := _stand_in(c, required, columns))}
    named = "column " + repr(missing[0]) if len(missing) == 1 else "columns " + " and ".join(map(repr, missing))
    message = f"{source}: {kind} feedback needs the {named}; found {have}"
    if renames:
        message += "; did you mean " + " and ".join(map(repr, renames.values())) + "?"
        return BadFeedback(f"{message}\nRename with --columns {','.join(f'{c}={s}' for c, s in renames.items())}.")
    mend = _MEND_MISSING.get(missing[0], f"If another column holds it: --columns {missing[0]}=NAME.")
    return BadFeedback(f"{message}.\n{mend}")


def _stand_in(name: str, required: Sequence[str], columns: Iterable[str]) -> str:
    """The column that is most likely meant by `name`: misspelt, or called as others call it; or ''."""
    free = {str(c).lower(): c for c in columns if c not in required}
    close = difflib.get_close_matches(name, free, n=1, cutoff=0.75)
    usual = [other for other in _OTHER_NAMES.get(name, ()) if other in free]
    return next((free[c] for c in (*close, *usual)), "")


_OTHER_NAMES = {
    "prompt": ("question", "instruction", "query", "input", "request"),
    "completion": ("response", "answer", "output", "reply", "generation"),
    "completions": ("responses", "answers", "outputs", "generations"),
    "label": ("thumb", "feedback", "vote", "liked", "is_good"),
    "rating": ("score", "grade", "stars", "helpfulness", "overall_score"),
    "chosen": ("preferred", "accepted", "winner", "preferred_output", "response_chosen"),
    "rejected": ("dispreferred", "loser", "non_preferred_output", "response_rejected"),
}

_MEND_CONVERSATION = "Split each conversation: its last turn is the completion, the turns before it are the prompt.\n"
_MEND_MISSING = {
    "prompt": "Where the question stands inside the answers (whole conversations), move the shared turns to 'prompt'.",
    "label": "A thumb is a column 'label' with true or false; rename yours with --columns label=NAME.",
}


# --- the checker -----------------------------------------------------------------------------------------------------


class _Problem(Exception):
    """What is wrong with one field; `check_row` adds the place."""

    def __init__(self, field: str | None, problem: str, mend: str = "") -> None:
        self.field, self.problem, self.mend = field, problem, mend


def check_row(
    raw: Any,
    kind: Kind,
    *,
    source: str = "the given rows",
    row: int = 0,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, float] | None = None,
) -> Row:
    """The row that `raw` stands for.

    `columns` says which column of the source holds one of ours, where the names differ; `label_map` gives meaning to
    labels that are no booleans. A flat rating row becomes a `RatingRow` with one answer.
    Raises: BadRow, with the field under the name it has in the source.
    """
    try:
        if not isinstance(raw, dict):
            raise _Problem(None, f"is {_a(raw)}; expected an object with columns")
        if columns:
            raw = {**raw, **{ours: raw[theirs] for ours, theirs in columns.items() if theirs in raw}}
        return _CHECKS[kind](raw, row, label_map)
    except _Problem as found:
        name = found.field
        if columns and name is not None:
            head, bracket, rest = name.partition("[")
            name = columns.get(head, head) + bracket + rest
        raise BadRow(source, row, name, found.problem, found.mend) from None


def check_prompt(raw: Any, *, source: str, row: int) -> Content:
    """The prompt of a row of which nothing else is needed. Raises: BadRow."""
    try:
        if not isinstance(raw, dict):
            raise _Problem(None, f"is {_a(raw)}; expected an object with columns")
        return _prompt(_get(raw, "prompt", "label", ("prompt",)))
    except _Problem as found:
        raise BadRow(source, row, found.field, found.problem, found.mend) from None


def _label_row(raw: Message, row: int, label_map: Mapping[str, float] | None) -> LabelRow:
    prompt = _prompt(_get(raw, "prompt", "label"))
    completion = _completion(_get(raw, "completion", "label"), prompt, "completion")
    label = _label(_get(raw, "label", "label"), label_map)
    return LabelRow(prompt, completion, label, _weight(raw), _id(raw), row)


def _pair_row(raw: Message, row: int, label_map: Mapping[str, float] | None) -> PairRow:
    prompt = _prompt(_get(raw, "prompt", "pair"))
    chosen = _completion(_get(raw, "chosen", "pair"), prompt, "chosen")
    rejected = _completion(_get(raw, "rejected", "pair"), prompt, "rejected")
    best, worst = (None if raw.get(c) is None else _number(raw[c], c) for c in ("chosen_rating", "rejected_rating"))
    return PairRow(prompt, chosen, rejected, best, worst, _tie(raw.get("tie")), _weight(raw), _id(raw), row)


def _rating_row(raw: Message, row: int, label_map: Mapping[str, float] | None) -> RatingRow:
    prompt = _prompt(_get(raw, "prompt", "rating"))
    if "completions" not in raw and "completion" in raw:
        completion = _completion(raw["completion"], prompt, "completion")
        rating = _number(_get(raw, "rating", "rating", FLAT_RATING), "rating")
        return RatingRow(prompt, (Answer(completion, rating),), _weight(raw), _id(raw), row)
    found = _plain(_get(raw, "completions", "rating"))
    if not isinstance(found, list) or not found:
        raise _Problem("completions", f"is {_a(found)}; expected a list of answers, each with text and rating")
    answers = tuple(_answer(a, prompt, f"completions[{i}]") for i, a in enumerate(found, 1))
    return RatingRow(prompt, answers, _weight(raw), _id(raw), row)


_CHECKS: dict[Kind, Callable[[Message, int, Mapping[str, float] | None], Row]] = {
    "label": _label_row,
    "pair": _pair_row,
    "rating": _rating_row,
}


def _answer(raw: Any, prompt: Content, name: str) -> Answer:
    if not isinstance(raw, dict):
        raise _Problem(name, f'is {_a(raw)}; expected an object like {{"text": "...", "rating": 4}}')
    content = next((raw[key] for key in ("text", "message", "completion") if raw.get(key) is not None), None)
    if content is None:
        raise _Problem(name, f"has neither 'text' nor 'message'; it has {_names(raw)}")
    completion = _completion(content, prompt, name)
    if "rating" not in raw:
        raise _Problem(name, f"has no 'rating'; it has {_names(raw)}{nearest('rating', map(str, raw))}")
    return Answer(completion, _number(raw["rating"], f"{name}.rating"))


def _get(raw: Message, name: str, kind: Kind, shape: Sequence[str] | None = None) -> Any:
    if name in raw:
        return raw[name]
    required = shape or REQUIRED[kind]
    known = {*required, *OPTIONAL[kind]}
    stand_in = _stand_in(name, sorted(known), raw)
    hint = f"; did you mean {stand_in!r}?" if stand_in else "."
    mend = f"Rename with --columns {name}={stand_in}." if stand_in else _MEND_MISSING.get(name, "")
    raise _Problem(name, f"is missing; the row has {_names(raw)}{hint}", mend)


# --- prompts, completions, messages ----------------------------------------------------------------------------------


def _prompt(value: Any) -> Content:
    if type(value) is str:
        _readable(value, "prompt")
        if not value or value.isspace():
            raise _Problem("prompt", "is empty")
        return value
    messages = _messages(value, "prompt")
    asked = [m for m in messages if m["role"] == "user"]
    if not asked:
        roles = ", ".join(m["role"] for m in messages)
        raise _Problem(
            "prompt",
            f"has no user turn (its roles: {roles})",
            "A prompt is what was asked: give it at least one message with role 'user'.",
        )
    if all(not m["content"] or m["content"].isspace() for m in asked):
        raise _Problem("prompt", "is empty: no user turn says anything")
    if messages[-1]["role"] == "assistant":
        raise _Problem(
            "prompt",
            "ends with an assistant turn",
            "A prompt ends with what is to be answered: move the last assistant turn to the completion.",
        )
    return messages


def _completion(value: Any, prompt: Content, name: str) -> Content:
    if type(value) is str:
        _readable(value, name)
        if not value or value.isspace():
            raise _Problem(name, "is empty", EMPTY_ANSWER_MEND)
        return value if isinstance(prompt, str) else [{"role": "assistant", "content": value}]
    messages = _messages(value, name)
    roles = [m["role"] for m in messages]
    if isinstance(prompt, str):
        mend = 'Make the prompt a chat too, as in [{"role": "user", "content": "..."}], or the completion plain text.'
        if "user" in roles:
            mend += "\nThe completion holds only the answer: move the turns before it to the prompt."
        raise _Problem(name, "is a list of messages while the prompt is text", mend)
    if not {"assistant", "tool"}.issuperset(roles) or roles[0] != "assistant" or roles[-1] != "assistant":
        shown = ", ".join(roles if len(roles) < 8 else [*roles[:7], "…"])
        raise _Problem(
            name,
            f"has the roles {shown}; expected an assistant turn, or several with tool turns between",
            "The completion holds only the answer: move the turns before it to the prompt.",
        )
    if all(m["role"] == "tool" or (not m.get("tool_calls") and not m["content"].strip()) for m in messages):
        raise _Problem(name, "is empty", EMPTY_ANSWER_MEND)
    return messages


EMPTY_ANSWER_MEND = "Nothing can be learnt from an answer without words: mend the export or leave the row out."


def _messages(value: Any, name: str) -> list[Message]:
    value = _plain(value)
    if isinstance(value, dict) and "role" in value:
        value = [value]
    if not isinstance(value, list):
        raise _Problem(name, f"is {_a(value)}; expected text or a list of messages")
    if not value:
        raise _Problem(name, "is an empty list of messages")
    return [_message(m, name, i) for i, m in enumerate(value, 1)]


def _message(raw: Any, name: str, number: int) -> Message:
    if not isinstance(raw, dict):
        raise _Problem(name, f'message {number} is {_a(raw)}; expected {{"role": "user", "content": "..."}}')
    role, content = raw.get("role"), raw.get("content")
    if role not in ROLES:
        raise _bad_role(raw, name, number)
    if type(content) is not str:
        content = _joined_parts(_plain(content), raw, name, number)
    _readable(content, name)
    if len(raw) == 2:
        return {"role": role, "content": content}
    # Arrow fills absent keys with null, and templates print a null as "None".
    return {**{key: value for key, value in raw.items() if value is not None}, "role": role, "content": content}


def _bad_role(raw: Message, name: str, number: int) -> _Problem:
    if "role" not in raw:
        mend = "Messages that say 'from' and 'value' need the names 'role' and 'content'." if "from" in raw else ""
        return _Problem(name, f"message {number} has no 'role'; it has {_names(raw)}", mend)
    role = raw["role"]
    meant = {"human": "user", "gpt": "assistant", "bot": "assistant", "ai": "assistant", "model": "assistant"}
    hint = f"; did you mean {meant[role]!r}?" if isinstance(role, str) and role in meant else nearest(str(role), ROLES)
    return _Problem(name, f"message {number} has the unknown role {_show(role)}; known are {', '.join(ROLES)}{hint}")


def _joined_parts(content: Any, raw: Message, name: str, number: int) -> str:
    """Text of a content that is missing (a tool call) or a list of parts as chat APIs write it."""
    if content is None:
        if raw.get("tool_calls"):
            return ""
        raise _Problem(name, f"message {number} ({raw['role']}) has no 'content'")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        kinds = {part.get("type") for part in content if not isinstance(part.get("text"), str)}
        if not kinds:
            return "".join(part["text"] for part in content)
        shown = ", ".join(sorted(map(str, kinds)))
        raise _Problem(name, f"message {number} has content parts of type {shown}; only text can be learnt from")
    raise _Problem(name, f"message {number} has content that is {_a(content)}; expected text")


def _readable(text: str, name: str) -> None:
    """Refuse half characters: a tokenizer cannot encode them, and they mean that the file was not UTF-8."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        around = text[max(0, error.start - 12) : error.start]
        # Bytes that were no UTF-8 arrive as U+DC80..U+DCFF (Python's surrogateescape).
        what = f"the byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character, U+{code:04X},"
        raise _Problem(
            name,
            f"is not valid UTF-8: {what} after {_show(around)}",
            "Save the file as UTF-8, for example with: iconv -f latin1 -t utf-8 OLD > NEW",
        ) from None


# --- numbers and labels ----------------------------------------------------------------------------------------------


def _number(value: Any, name: str) -> float:
    value = _plain(value)
    if type(value) not in (int, float):
        raise _Problem(name, f"is {_a(value)}; expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Problem(name, f"is {number}; expected a finite number")
    return number


def _weight(raw: Message) -> float:
    if raw.get("weight") is None:
        return 1.0
    weight = _number(raw["weight"], "weight")
    if weight <= 0:
        raise _Problem("weight", f"is {weight:g}; expected a number above 0", "Leave the row out instead.")
    return weight


def _id(raw: Message) -> str | None:
    found = raw.get("id")
    return found if found is None or type(found) is str else str(found)


def _tie(value: Any) -> bool:
    value = _plain(value)
    if value in (None, 0, 1):
        return bool(value)
    raise _Problem("tie", f"is {_show(value)}; expected true or false")


def _label(value: Any, label_map: Mapping[str, float] | None) -> float:
    if type(value) is bool and not label_map:
        return float(value)
    value = _plain(value)
    if label_map and (mapped := label_map.get(label_name(value))) is not None:
        return mapped
    if type(value) in (bool, int, float) and 0 <= value <= 1:
        return float(value)
    if label_map:
        hint = nearest(label_name(value), label_map)
        raise _Problem("label", f"is {_show(value)}; the label map knows {', '.join(label_map)}{hint}")
    if value is None:
        raise _Problem("label", "is null; expected true or false", "Nobody voted here: leave the row out.")
    raise _Problem("label", f"is {_show(value)}; expected true or false", _label_mend(value))


_OPPOSITES = (
    ("yes", "no"), ("true", "false"), ("up", "down"), ("good", "bad"), ("like", "dislike"), ("liked", "disliked"),
    ("positive", "negative"), ("pos", "neg"), ("thumbs_up", "thumbs_down"), ("thumbs up", "thumbs down"),
    ("desirable", "undesirable"), ("chosen", "rejected"), ("accept", "reject"), ("accepted", "rejected"),
    ("upvote", "downvote"), ("y", "n"), ("t", "f"), ("+", "-"), ("1", "-1"), ("1", "0"), ("👍", "👎"),
)  # fmt: skip


def _label_mend(value: Any) -> str:
    if type(value) in (int, float) and value > 1:
        return "If these are grades, read them as ratings: --kind rating --columns rating=label."
    name = label_name(value)
    for up, down in _OPPOSITES:
        for cased in (str, str.capitalize, str.upper):
            if name in (cased(up), cased(down)):
                return f"Map it with --label-map {_quoted(f'{cased(up)}=true,{cased(down)}=false')}."
    shown = name if len(name) <= 30 else "FOUND"
    return f"Map it with --label-map {_quoted(f'{shown}=true,OTHER=false')} (or the other way round)."


def label_name(value: Any) -> str:
    """How a label is written on the left of --label-map."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value).strip()


# --- options given as text -------------------------------------------------------------------------------------------


def parse_label_map(given: str | Mapping[Any, Any] | None) -> dict[str, float] | None:
    """`yes=true,no=false`, or a dict of the same, as names and probabilities.

    Raises: BadConfig for anything whose right side is no label.
    """
    if not given:
        return None
    entries = (
        _assignments(given, "--label-map", "yes=true,no=false", str.rpartition) if isinstance(given, str) else given
    )
    parsed = {}
    for name, value in entries.items():
        number = typed_cell(value) if isinstance(value, str) else value
        if not isinstance(number, bool | int | float) or not 0 <= number <= 1:
            raise BadConfig(f"--label-map {name}={value}: expected true, false or a probability between 0 and 1.")
        parsed[label_name(name)] = float(number)
    return parsed


def parse_columns(given: str | Mapping[str, str] | None) -> dict[str, str] | None:
    """`prompt=question,completion=answer`, or a dict of the same: our column, then the one in the source.

    Raises: BadConfig for a name on the left that is none of our columns.
    """
    if not given:
        return None
    example = "prompt=question,completion=answer"
    entries = _assignments(given, "--columns", example, str.partition) if isinstance(given, str) else given
    for ours, theirs in entries.items():
        if ours not in COLUMNS:
            swapped = f"; did you mean {theirs}={ours}?" if theirs in COLUMNS else nearest(ours, COLUMNS)
            raise BadConfig(
                f"--columns {ours}={theirs}: {ours!r} is no column of likewise{swapped}\n"
                f"On the left stands one of {', '.join(COLUMNS)}; on the right its name in your data."
            )
    return dict(entries)


def _assignments(
    text: str, option: str, example: str, split: Callable[[str, str], tuple[str, str, str]]
) -> dict[str, str]:
    pairs = [split(part, "=") for part in text.split(",") if part.strip()]
    if any(not name.strip() or not value.strip() for name, _, value in pairs):
        raise BadConfig(f"{option} {text}: expected NAME=VALUE, separated by commas, as in {example}.")
    return {name.strip(): value.strip() for name, _, value in pairs}


# --- rows from and to plain values -----------------------------------------------------------------------------------


def typed_cell(text: str) -> Any:
    """The boolean or number a cell of a file without types stands for, or the text itself."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return text


def typed_row(raw: Mapping[str, str | None], columns: Mapping[str, str] | None = None) -> Message:
    """A row of a file without types (CSV): numbers, booleans and chats in JSON; an empty optional cell is absent."""
    ours = {theirs: name for name, theirs in (columns or {}).items()}
    row: Message = {}
    for column, text in raw.items():
        name = ours.get(column, column)
        if name in ("label", "rating", "chosen_rating", "rejected_rating", "tie", "weight"):
            if text is not None and text.strip():
                row[column] = typed_cell(text)
            elif name in ("label", "rating"):
                row[column] = None
        elif name == "id":
            row[column] = text or None
        elif name in COLUMNS and text is not None:
            row[column] = _chat_in_text(text)
        else:
            row[column] = text
    return row


def _chat_in_text(text: str) -> Any:
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    objects = value if isinstance(value, list) else [value]
    is_ours = bool(objects) and all(isinstance(o, dict) and ("role" in o or "rating" in o) for o in objects)
    return value if is_ours else text


def to_columns(row: Row) -> dict[str, Any]:
    """The row as the plain dict `check_row` reads; optional columns only where they say something."""
    match row:
        case LabelRow():
            out: dict[str, Any] = {"prompt": row.prompt, "completion": row.completion, "label": _plain_label(row.label)}
        case PairRow():
            out = {"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected}
            out |= {c: v for c in ("chosen_rating", "rejected_rating") if (v := getattr(row, c)) is not None}
            out |= {"tie": True} if row.tie else {}
        case RatingRow():
            out = {"prompt": row.prompt, "completions": [_plain_answer(a) for a in row.completions]}
    if row.weight != 1.0:
        out["weight"] = row.weight
    return out if row.id is None else {"id": row.id, **out}


def _plain_label(label: float) -> bool | float:
    return bool(label) if label in (0.0, 1.0) else label


def _plain_answer(answer: Answer) -> dict[str, Any]:
    content = answer.completion
    if isinstance(content, str):
        return {"text": content, "rating": answer.rating}
    return {"message": content[0] if len(content) == 1 else content, "rating": answer.rating}


def _plain(value: Any) -> Any:
    """Python values for what NumPy and tensors hand out."""
    if isinstance(value, str | bool | int | float | list | dict | None):
        return value
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


# --- words for messages ----------------------------------------------------------------------------------------------


def _show(value: Any, width: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr, skipkeys=True).encode(errors="backslashreplace").decode()
    return text if len(text) <= width else text[: width - 1] + "…"


def _a(value: Any) -> str:
    """What was found, with its sort where the value alone would not tell."""
    match value:
        case None:
            return "null"
        case bool() | int() | float():
            return _show(value)
        case str():
            return f"the text {_show(value)}"
        case list():
            return f"the list {_show(value)}"
        case dict():
            return f"the object {_show(value)}"
    return f"a {type(value).__name__}"


def _names(raw: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, list(raw)[:12])) or "no columns"


def _quoted(text: str) -> str:
    return f"'{text}'" if any(c in text for c in " &|<>;()$*?") else text


def plural(count: int, noun: str) -> str:
    """'1 row', '1,841 rows'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def misspelt(name: str, known: Iterable[str]) -> str:
    """The known name that `name` nearly is, or ''."""
    return next(iter(difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.75)), "")
