"""Feedback from files, hub data sets, data frames and iterables.

Every source becomes a stream of (row number, raw row); `likewise.schema` says what a raw row means. Row numbers are
lines for JSON lines, and count from 1 otherwise (in CSV: records below the header).
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import IO, Any, get_args

from likewise.errors import BadConfig, BadFeedback, BadRow, CannotSave, nearest
from likewise.schema import (
    FLAT_RATING,
    OPTIONAL,
    REQUIRED,
    Answer,
    Content,
    Feedback,
    Kind,
    LabelRow,
    PairRow,
    RatingRow,
    SkippedRow,
    check_prompt,
    check_row,
    content_key,
    kind_of,
    misspelt,
    no_kind,
    parse_columns,
    parse_label_map,
    to_columns,
    typed_row,
)

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
ROWS_TO_TELL_THE_KIND = 100
_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?")

RawRows = Iterator[tuple[int, Any]]


def read_feedback(
    source: str | PathLike[str] | Feedback | Iterable[Any],
    *,
    kind: Kind | None = None,
    label_map: str | Mapping[Any, Any] | None = None,
    columns: str | Mapping[str, str] | None = None,
    split: str = "train",
    skip_bad_rows: bool = False,
    skipped_to: str | PathLike[str] | None = None,
    limit: int | None = None,
) -> Feedback:
    """Every row of `source`, checked, as rows of one kind.

    `source` is a file (.jsonl, .json, .csv, .tsv, .parquet; text files also with .gz), the name of a hub data set
    (`org/name` or `org/name:config`, of which `split` is read) where no such file exists, a `datasets.Dataset`, a
    data frame, or any iterable of dicts (or of rows made before). The kind follows from the columns unless `kind`
    says it. Flat rating rows (`prompt, completion, rating`) are grouped by equal prompts, in order of appearance.

    A bad row ends the reading with an error that tells of all of them; with `skip_bad_rows` they are left out, listed
    in `skipped`, and written to `skipped_to`. `limit` reads no more rows than that.
    Raises: BadFeedback, BadConfig.
    """
    names, labels = parse_columns(columns), parse_label_map(label_map)
    if isinstance(source, Feedback):
        return source
    source_name, raw_rows = _open(source, split, names)
    raw_rows = islice(raw_rows, limit)
    head = list(islice(raw_rows, ROWS_TO_TELL_THE_KIND))
    kind = _tell_kind(head, kind, names, source_name)
    rows: list[Any] = []
    skipped: list[SkippedRow] = []
    seen_columns: dict[str, None] = {}
    for number, raw in chain(head, raw_rows):
        try:
            if isinstance(raw, _Unreadable):
                raise BadRow(source_name, number, None, raw.problem, raw.mend)
            rows.append(check_row(raw, kind, source=source_name, row=number, columns=names, label_map=labels))
            if not seen_columns.keys() >= raw.keys():
                seen_columns.update(dict.fromkeys(raw))
        except BadRow as bad:
            found = raw.text if isinstance(raw, _Unreadable) else raw
            reason = f"'{bad.field}' {bad.problem}" if bad.field else bad.problem
            skipped.append(SkippedRow(number, reason, found, bad.field, bad.mend))
    rows_read = len(rows) + len(skipped)
    if not rows_read:
        raise BadFeedback(f"{source_name}: holds no rows.")
    if skipped and not (skip_bad_rows and rows):
        raise bad_rows_error(source_name, skipped, rows_read, skipping=skip_bad_rows)
    if skipped and skipped_to is not None:
        write_skipped(skipped, skipped_to)
    if kind == "rating" and (names or {}).get("completions", "completions") not in seen_columns:
        rows = group_by_prompt(rows)
    unused = tuple(c for c in seen_columns if c not in _used_columns(kind, names))
    return Feedback(kind, rows, source_name, skipped, unused, rows_read)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands in the stream for a row that could not even be parsed."""

    text: str
    problem: str
    mend: str = ""


def read_prompts(source: str | PathLike[str], *, limit: int | None = None) -> list[Content]:
    """The prompts of a file in any format that feedback has (other columns are ignored), each once, in order.

    A .txt file holds one plain prompt a line. Raises: BadFeedback, or BadRow for a prompt that cannot be used.
    """
    path = Path(source).expanduser()
    if path.suffix == ".txt" and path.is_file():
        with _binary(path, str(source)) as file:
            lines = (line.decode("utf-8", "replace").rstrip("\r\n") for line in file)
            return list(islice(dict.fromkeys(line for line in lines if line.strip()), limit))
    name, raw_rows = _open(source, "train", None)
    found: dict[Any, Content] = {}
    for number, raw in raw_rows:
        if isinstance(raw, _Unreadable):
            raise BadRow(name, number, None, raw.problem, raw.mend)
        prompt = check_prompt(raw, source=name, row=number)
        found.setdefault(content_key(prompt), prompt)
        if len(found) == limit:
            break
    if not found:
        raise BadFeedback(f"{name}: holds no prompts.")
    return list(found.values())


def _tell_kind(head: list[tuple[int, Any]], wanted: str | None, names: Mapping[str, str] | None, source: str) -> Kind:
    if wanted is not None and wanted not in get_args(Kind):
        raise BadConfig(f"--kind {wanted}: expected label, pair or rating{nearest(wanted, get_args(Kind))}")
    shapes = [list(raw) for _, raw in head if isinstance(raw, dict)]
    columns = list(dict.fromkeys(chain.from_iterable(shapes)))
    for ours, theirs in (names or {}).items():
        if shapes and theirs not in columns:
            found = ", ".join(map(repr, columns)) + nearest(theirs, map(str, columns))
            raise BadFeedback(f"{source}: no column {theirs!r} (--columns {ours}={theirs}); found {found}")
    if wanted is not None:
        return wanted  # type: ignore[return-value]
    renamed = {theirs: ours for ours, theirs in (names or {}).items()}
    votes = [kind for shape in shapes if (kind := kind_of(renamed.get(c, c) for c in shape))]
    if votes:
        return max(dict.fromkeys(votes), key=votes.count)
    if head and not shapes:
        unparsed = [
            SkippedRow(n, raw.problem, raw.text, None, raw.mend)
            if isinstance(raw, _Unreadable)
            else SkippedRow(n, f"is {type(raw).__name__} {str(raw)[:40]!r}; expected an object with columns", raw)
            for n, raw in head
        ]
        raise bad_rows_error(source, unparsed, len(head))
    if not head:
        raise BadFeedback(f"{source}: holds no rows.")
    raise no_kind(source, [renamed.get(c, c) for c in columns])


def _used_columns(kind: Kind, names: Mapping[str, str] | None) -> set[str]:
    ours = {*REQUIRED[kind], *OPTIONAL[kind], *(FLAT_RATING if kind == "rating" else ())}
    return {(names or {}).get(column, column) for column in ours}


def group_by_prompt(rows: Iterable[RatingRow]) -> list[RatingRow]:
    """Rating rows with equal prompts as one, in order of first appearance; its weight is their mean."""
    groups: dict[Any, list[RatingRow]] = {}
    for row in rows:
        groups.setdefault(content_key(row.prompt), []).append(row)
    return [_merged(group) for group in groups.values()]


def _merged(group: list[RatingRow]) -> RatingRow:
    answers: tuple[Answer, ...] = tuple(chain.from_iterable(row.completions for row in group))
    weight = sum(row.weight for row in group) / len(group)
    return RatingRow(group[0].prompt, answers, weight, group[0].id, group[0].row)


# --- bad rows --------------------------------------------------------------------------------------------------------


def bad_rows_error(
    source: str, bad: list[SkippedRow], rows_read: int, *, shown: int = 3, skipping: bool = False
) -> BadFeedback:
    """One message for all bad rows: the first few, how many there are, and every mend once."""
    lines = [f"row {row.row}: {row.reason}" for row in bad[:shown]]
    mends = list(dict.fromkeys(row.mend for row in bad if row.mend))[:shown]
    if len(bad) == 1 and rows_read > 1:
        return BadFeedback("\n".join([f"{source} {lines[0]}", *mends, "Or go on without this row: --skip-bad-rows."]))
    if len(bad) == rows_read == 1:
        return BadFeedback("\n".join([f"{source} {lines[0]}", *mends]))
    head = f"{source}: {len(bad):,} of {rows_read:,} rows cannot be used" + (", so none is left:" if skipping else ":")
    more = [f"  and {len(bad) - shown:,} more"] if len(bad) > shown else []
    go_on = [] if len(bad) == rows_read else ["Or go on without these rows: --skip-bad-rows."]
    return BadFeedback("\n".join([head, *(f"  {line}" for line in lines), *more, *mends, *go_on]))


def write_skipped(skipped: Iterable[SkippedRow], path: str | PathLike[str]) -> None:
    """The rows left out as JSON lines: row number, reason, and what stood there."""
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            for row in skipped:
                record = {"row": row.row, "reason": row.reason, "found": row.found}
                file.write(json.dumps(record, ensure_ascii=False, default=str, skipkeys=True) + "\n")
    except OSError as error:
        raise CannotSave(f"{path}: cannot write the skipped rows: {error.strerror}.") from error


# --- sources ---------------------------------------------------------------------------------------------------------


def _open(source: Any, split: str, names: Mapping[str, str] | None) -> tuple[str, RawRows]:
    """What to call the source in messages, and its raw rows."""
    if isinstance(source, str | PathLike):
        return _open_named(str(source), split, names)
    module = type(source).__module__.partition(".")[0]
    if module == "datasets":
        return "the data set", _data_set_rows(source, split)
    if module == "pandas":
        return "the data frame", _data_frame_rows(source)
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise BadFeedback(
            f"feedback is a {type(source).__name__}; expected a path, a data set or an iterable of dicts."
        )
    rows = (to_columns(row) if isinstance(row, LabelRow | PairRow | RatingRow) else row for row in source)
    return "the given rows", enumerate(rows, 1)


def _open_named(name: str, split: str, names: Mapping[str, str] | None) -> tuple[str, RawRows]:
    path = Path(name).expanduser()
    if path.is_dir():
        inside = [p.name for p in sorted(path.iterdir()) if _suffix(p) in SUFFIXES][:5]
        raise BadFeedback(f"{name}: is a folder; give a file" + (f", such as {', '.join(inside)}." if inside else "."))
    if not path.exists():
        hub = _HUB_NAME.fullmatch(name)
        if hub and _suffix(path) not in SUFFIXES and not path.parent.is_dir():
            return name, _hub_rows(hub["name"], hub["config"], split)
        raise _missing(path, name)
    suffix = _suffix(path)
    if suffix not in SUFFIXES or (suffix == ".parquet" and path.suffix == ".gz"):
        raise BadFeedback(
            f"{name}: {path.suffix or 'no suffix'} is no format likewise reads; "
            f"expected {', '.join(SUFFIXES)} (text files also with .gz)."
        )
    if suffix == ".parquet":
        return name, _parquet_rows(path, name)
    readers = {".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
    return name, readers.get(suffix, _json_lines)(path, name, names)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _missing(path: Path, name: str) -> BadFeedback:
    if not path.parent.is_dir():
        return BadFeedback(f"{name}: no such file; the folder {str(path.parent)!r} does not exist.")
    siblings = [p.name for p in path.parent.iterdir() if p.is_file()]
    if close := misspelt(path.name, siblings):
        return BadFeedback(f"{name}: no such file; did you mean {close!r}?")
    listed = ", ".join(sorted(s for s in siblings if _suffix(Path(s)) in SUFFIXES)[:5])
    return BadFeedback(f"{name}: no such file" + (f"; in that folder: {listed}." if listed else "."))


@contextmanager
def _binary(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The bytes of a text file, unzipped; what the file system says becomes a message."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            _refuse_disguise(file, name)
            yield file  # type: ignore[misc]
    except gzip.BadGzipFile as error:
        raise BadFeedback(f"{name}: is not gzip; rename it without .gz if it is plain text.") from error
    except (EOFError, zlib.error) as error:
        raise BadFeedback(f"{name}: the gzip file is cut off or broken: {error}. Copy it again.") from error
    except OSError as error:
        raise BadFeedback(f"{name}: cannot be read: {error.strerror or error}.") from error


def _refuse_disguise(file: Any, name: str) -> None:
    """Refuse what the first bytes give away, and step over a UTF-8 byte order mark."""
    start = file.peek(4)[:4]
    for magic, what in (
        (b"\x1f\x8b", "gzip; give it a name that ends in .gz"),
        (b"PAR1", "Parquet; give it a name that ends in .parquet"),
        (b"PK\x03\x04", "a zip archive or spreadsheet; save it as CSV or JSON lines"),
        (b"\xff\xfe", "UTF-16; save it as UTF-8, for example with: iconv -f utf-16 -t utf-8 OLD > NEW"),
        (b"\xfe\xff", "UTF-16; save it as UTF-8, for example with: iconv -f utf-16 -t utf-8 OLD > NEW"),
    ):
        if start.startswith(magic):
            raise BadFeedback(f"{name}: is {what}.")
    if start.startswith(b"\xef\xbb\xbf"):
        file.read(3)


def _json_lines(path: Path, name: str, names: Mapping[str, str] | None) -> RawRows:
    with _binary(path, name) as file:
        for number, line in enumerate(file, 1):
            # Bytes that are no UTF-8 pass through; the checker finds them and names the field.
            text = line.decode("utf-8", "surrogateescape").strip()
            if text:
                yield number, _json_line(text, number)


def _json_line(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        return _Unreadable(text, f"line {number} is not valid JSON: {_json_problem(error)}")
    except RecursionError:
        return _Unreadable(text[:200], f"line {number} is not valid JSON: nested too deeply")


def _json_problem(error: ValueError) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _json_rows(path: Path, name: str, names: Mapping[str, str] | None) -> RawRows:
    with _binary(path, name) as file:
        text = file.read().decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from _json_lines(path, name, names)  # JSON lines under the name .json, as some exports have it
            return
        where = f"line {error.lineno}, column {error.colno}"
        raise BadFeedback(f"{name}: is not valid JSON: {error.msg} at {where}.") from error
    if isinstance(value, dict) and kind_of(value) is None:
        lists = [key for key, inner in value.items() if isinstance(inner, list)]
        mend = f"\nThe rows may stand under {lists[0]!r}: save that list alone." if lists else ""
        raise BadFeedback(f"{name}: is one object ({', '.join(map(repr, list(value)[:8]))}); expected a list.{mend}")
    if not isinstance(value, dict | list):
        raise BadFeedback(f"{name}: holds the JSON value {str(value)[:40]!r}; expected a list of objects.")
    yield from enumerate([value] if isinstance(value, dict) else value, 1)


def _csv_rows(path: Path, name: str, names: Mapping[str, str] | None) -> RawRows:
    with _binary(path, name) as file, _long_cells_allowed():
        lines = (line.decode("utf-8", "surrogateescape") for line in file)
        reader = csv.reader(lines, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
        try:
            header = [column.strip() for column in next(reader, [])]
            if len(set(header)) < len(header):
                twice = next(column for column in header if header.count(column) > 1)
                raise BadFeedback(f"{name}: the header names {twice!r} twice.")
            for number, cells in enumerate(filter(None, reader), 1):
                yield number, _csv_row(header, cells, names)
        except csv.Error as error:
            raise BadFeedback(
                f"{name}: is not valid CSV near line {reader.line_num}: {error}.\n"
                "Put text that holds quotes, commas or line breaks in quotes, and double the quotes inside it."
            ) from error


def _csv_row(header: list[str], cells: list[str], names: Mapping[str, str] | None) -> Any:
    if len(cells) != len(header):
        return _Unreadable(
            ",".join(cells),
            f"has {len(cells)} cells; the header has {len(header)}",
            "Put text that holds commas or line breaks in quotes.",
        )
    return typed_row(dict(zip(header, cells, strict=True)), names)


@contextmanager
def _long_cells_allowed() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long chat
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet_rows(path: Path, name: str) -> RawRows:
    import pyarrow
    import pyarrow.parquet

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=4096)
        yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BadFeedback(f"{name}: cannot be read as Parquet: {error}") from error


def _data_frame_rows(frame: Any) -> RawRows:
    for number, row in enumerate(frame.to_dict("records"), 1):
        # A data frame says NaN where nothing stands, also beside text.
        yield number, {str(key): None if isinstance(v, float) and v != v else v for key, v in row.items()}


def _data_set_rows(data_set: Any, split: str) -> RawRows:
    if isinstance(data_set, Mapping):
        if split not in data_set:
            raise BadFeedback(f"the data set has no split {split!r}; it has {', '.join(data_set)}.")
        data_set = data_set[split]
    data_set = data_set.with_format(None)
    if not hasattr(data_set, "__len__"):
        yield from enumerate(data_set, 1)
        return
    batches = data_set.iter(batch_size=1000)
    rows = (dict(zip(batch, values, strict=True)) for batch in batches for values in zip(*batch.values(), strict=True))
    yield from enumerate(rows, 1)


def _hub_rows(name: str, config: str | None, split: str) -> RawRows:
    import datasets

    try:
        data_set = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises whatever its network stack does
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadFeedback(
            f"{name}: there is no such file, and it cannot be loaded as a hub data set: {first}\n"
            "Check the name and the connection, or download it and give the file."
        ) from error
    yield from _data_set_rows(data_set, split)
