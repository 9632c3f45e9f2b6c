"""Reading: every format gives the same rows back, and every broken source one clear message."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likewise.data import read_feedback
from likewise.data.read import _hub_rows
from likewise.data.write import write_rows
from likewise.errors import BadConfig, BadFeedback, CannotSave
from likewise.schema import Answer, LabelRow, PairRow, RatingRow, to_columns

ROWS = [
    {"prompt": "Why?", "completion": "Because.", "label": True},
    {"prompt": "Who?", "completion": "Me.", "label": False},
]
READ = [LabelRow("Why?", "Because.", 1.0), LabelRow("Who?", "Me.", 0.0)]


def lines(*rows) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def refusal(source, **options) -> str:
    with pytest.raises(BadFeedback) as caught:
        read_feedback(source, **options)
    return str(caught.value)


# --- round trips -----------------------------------------------------------------------------------------------------

words = st.text(min_size=1, max_size=30).filter(lambda text: not text.isspace())
weights = st.just(1.0) | st.floats(1e-6, 1e6)
names = st.none() | st.text(min_size=1, max_size=8)
numbers = st.floats(-1e6, 1e6)
user = st.fixed_dictionaries({"role": st.just("user"), "content": words})
assistant = st.fixed_dictionaries({"role": st.just("assistant"), "content": words})
system = st.fixed_dictionaries({"role": st.just("system"), "content": st.text(max_size=10)})
chats = st.builds(
    lambda head, turns, last: head + [m for turn in turns for m in turn] + [last],
    st.lists(system, max_size=1),
    st.lists(st.tuples(user, assistant), max_size=2),
    user,
)
replies = st.lists(assistant, min_size=1, max_size=1)


def rows_of(kind: str, prompts, answers):
    if kind == "label":
        row = st.builds(LabelRow, prompts, answers, st.sampled_from([0.0, 1.0]) | st.floats(0, 1), weights, names)
    elif kind == "pair":
        rating = st.none() | numbers
        row = st.builds(PairRow, prompts, answers, answers, rating, rating, st.booleans(), weights, names)
    else:
        group = st.lists(st.builds(Answer, answers, numbers), min_size=1, max_size=3).map(tuple)
        row = st.builds(RatingRow, prompts, group, weights, names)
    return st.lists(row, min_size=1, max_size=4)


TEXTS, TALKS = (words, words), (chats, replies)
kinds = st.sampled_from(["label", "pair", "rating"])
# Rows of one kind, texts and chats in one file, and for formats whose columns have a type: one or the other.
mixed_rows = kinds.flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.builds(lambda some, others: some + others, rows_of(kind, *TEXTS), rows_of(kind, *TALKS))
    )
)
uniform_rows = st.tuples(kinds, st.sampled_from([TEXTS, TALKS])).flatmap(
    lambda drawn: st.tuples(st.just(drawn[0]), rows_of(drawn[0], *drawn[1]))
)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(mixed_rows, st.sampled_from(["rows.jsonl", "rows.jsonl.gz"]))
def test_json_lines_give_the_rows_back(tmp_path, drawn, name):
    kind, rows = drawn
    write_rows(rows, tmp_path / name, overwrite=True)
    read = read_feedback(tmp_path / name)
    assert (read.kind, read.rows, read.skipped, read.unused_columns) == (kind, rows, [], ())


@quick
@given(mixed_rows)
def test_json_and_iterables_give_the_rows_back(tmp_path, drawn):
    kind, rows = drawn
    plain = [to_columns(row) for row in rows]
    (tmp_path / "rows.json").write_text(json.dumps(plain), encoding="utf-8")
    for source in (tmp_path / "rows.json", plain, iter(plain), rows):
        read = read_feedback(source)
        assert (read.kind, read.rows) == (kind, rows)


@quick
@given(mixed_rows, st.sampled_from(["rows.csv", "rows.tsv", "rows.csv.gz"]))
def test_csv_gives_the_rows_back(tmp_path, drawn, name):
    kind, rows = drawn
    plain = [to_columns(row) for row in rows]
    header = list(dict.fromkeys(column for row in plain for column in row))
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if "tsv" in name else ",")
        writer.writerow(header)
        for row in plain:
            cells = [row.get(column, "") for column in header]
            writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])
    read = read_feedback(tmp_path / name)
    assert (read.kind, read.rows) == (kind, rows)


@quick
@given(uniform_rows)
def test_parquet_and_data_sets_give_the_rows_back(tmp_path, drawn):
    kind, rows = drawn
    plain = [to_columns(row) for row in rows]
    for row in plain:
        if "label" in row:
            row["label"] = float(row["label"])  # a column has one type
    table = pyarrow.Table.from_pylist(plain, schema=pyarrow.Table.from_pylist(_every_key(plain)).schema)
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    data_set = datasets.Dataset(table)
    for source in (tmp_path / "rows.parquet", data_set, datasets.DatasetDict(train=data_set), table.to_pandas()):
        assert (read_feedback(source).kind, read_feedback(source).rows) == (kind, rows)


def _every_key(plain):
    """Rows that between them show every column from the first row on, as Arrow takes its schema from there."""
    keys = {key: value for row in plain for key, value in row.items()}
    return [{**keys, **row} for row in plain]


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_flat_ratings_are_grouped_by_equal_prompts_in_order_of_appearance():
    flat = [("a", "1", 4), ("b", "2", 0), ("a", "3", 2)]
    rows = read_feedback([{"prompt": p, "completion": c, "rating": r} for p, c, r in flat]).rows
    assert rows == [
        RatingRow("a", (Answer("1", 4.0), Answer("3", 2.0))),
        RatingRow("b", (Answer("2", 0.0),)),
    ]
    assert [row.row for row in rows] == [1, 2]


def test_equal_chat_prompts_are_grouped_too():
    ask = [{"role": "user", "content": "Hi"}]
    raw = [{"prompt": list(ask), "completion": c, "rating": 1} for c in "ab"]
    assert len(read_feedback(raw)) == 1


def test_row_numbers_are_lines_and_blank_lines_do_not_shift_them(tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text(lines(ROWS[0], "", ROWS[1]))
    assert [row.row for row in read_feedback(path).rows] == [1, 3]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(*ROWS).replace("\n", "\r\n").encode())
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfprompt,completion,label\r\nWhy?,Because.,true\r\nWho?,Me.,0\r\n")
    assert read_feedback(tmp_path / "a.jsonl").rows == READ
    assert read_feedback(tmp_path / "a.csv").rows == READ


def test_json_lines_under_the_name_json_are_read(tmp_path):
    (tmp_path / "thumbs.json").write_text(lines(*ROWS))
    assert read_feedback(tmp_path / "thumbs.json").rows == READ


def test_limit_reads_no_more_rows():
    assert read_feedback(iter(ROWS * 300), limit=201).rows_read == 201


def test_kind_can_be_forced_where_columns_allow_two():
    raw = [{"prompt": "Why?", "completion": "Because.", "label": True, "rating": 3}]
    assert read_feedback(raw).kind == "label"
    assert read_feedback(raw, kind="rating").rows == [RatingRow("Why?", (Answer("Because.", 3.0),))]


def test_columns_and_labels_are_mapped_in_files_without_types(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("question,answer,vote,lang\nWhy?,Because.,up,en\nWho?,Me.,down,en\n")
    read = read_feedback(path, columns="prompt=question,completion=answer,label=vote", label_map="up=true,down=false")
    assert read.rows == READ
    assert read.unused_columns == ("lang",)


def test_a_row_that_is_first_and_bad_does_not_hide_the_kind():
    read = read_feedback([{"prompt": "x"}, *ROWS], skip_bad_rows=True)
    assert (read.kind, read.rows, read.skipped[0].row) == ("label", READ, 1)


def test_feedback_is_given_back_as_it_is():
    feedback = read_feedback(ROWS)
    assert read_feedback(feedback) is feedback


def test_a_hub_data_set_is_loaded_by_split(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(*ROWS))
    (tmp_path / "test.jsonl").write_text(lines(ROWS[1]))
    assert [raw for _, raw in _hub_rows(str(tmp_path), None, "test")] == [ROWS[1]]


# --- bad rows --------------------------------------------------------------------------------------------------------


def test_one_bad_row_is_told_in_full(tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text(lines(*ROWS, {**ROWS[0], "label": "yes"}))
    assert refusal(path) == (
        f"{path} row 3: 'label' is \"yes\"; expected true or false\n"
        "Map it with --label-map yes=true,no=false.\n"
        "Or go on without this row: --skip-bad-rows."
    )


def test_many_bad_rows_are_counted_and_the_first_three_shown():
    bad = [{**ROWS[0], "completion": ""}] * 39 + [{**ROWS[0], "label": None}]
    message = refusal([*ROWS, *bad])
    assert message == (
        "the given rows: 40 of 42 rows cannot be used:\n"
        "  row 3: 'completion' is empty\n  row 4: 'completion' is empty\n  row 5: 'completion' is empty\n"
        "  and 37 more\n"
        "Nothing can be learnt from an answer without words: mend the export or leave the row out.\n"
        "Nobody voted here: leave the row out.\n"
        "Or go on without these rows: --skip-bad-rows."
    )


def test_skipped_rows_are_listed_and_written_with_reasons(tmp_path):
    path, out = tmp_path / "thumbs.jsonl", tmp_path / "skipped.jsonl"
    path.write_bytes(lines(*ROWS, {**ROWS[0], "prompt": ""}, '{"prompt": ').encode() + b'{"prompt": "caf\xe9"}\n')
    read = read_feedback(path, skip_bad_rows=True, skipped_to=out)
    assert read.rows == READ
    assert read.rows_read == 5
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(w["row"], w["reason"]) for w in written] == [(s.row, s.reason) for s in read.skipped]
    assert written[0] == {"row": 3, "reason": "'prompt' is empty", "found": {**ROWS[0], "prompt": ""}}
    assert written[1]["found"] == '{"prompt":'


def test_nothing_is_written_where_nothing_was_skipped(tmp_path):
    read_feedback(ROWS, skip_bad_rows=True, skipped_to=tmp_path / "skipped.jsonl")
    assert not (tmp_path / "skipped.jsonl").exists()


def test_a_list_of_skipped_rows_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(CannotSave, match="cannot write the skipped rows"):
        read_feedback([*ROWS, {}], skip_bad_rows=True, skipped_to=tmp_path / "no" / "folder.jsonl")


def test_skipping_every_row_is_an_error():
    assert "2 of 2 rows cannot be used, so none is left" in refusal(
        [{**r, "prompt": ""} for r in ROWS], skip_bad_rows=True
    )


LATIN1 = lines(*ROWS).encode() + '{"prompt": "café", "completion": "Oui.", "label": true}\n'.encode("latin-1")


@pytest.mark.parametrize(
    "name, content, parts",
    [
        ("a.jsonl", lines(ROWS[0], '{"prompt": "Why?",'), ["row 2: line 2 is not valid JSON: ", " at column 19"]),
        ("a.jsonl", LATIN1, ["row 3: 'prompt' is not valid UTF-8: the byte 0xe9 after \"caf\"", "iconv"]),
        ("a.jsonl", lines({"prompt": "Why?", "completion": "x", "lable": 1}), ["label=lable", "did you mean 'lable'"]),
        ("a.jsonl", lines(*ROWS, {"prompt": "Why?", "completion": "x", "lable": True}),
         ["row 3: 'label' is missing", "--columns label=lable"]),
        ("a.jsonl", lines(*ROWS, {**ROWS[0], "label": None}), ["row 3: 'label' is null; expected true or false"]),
        ("a.jsonl", lines(*ROWS, {**ROWS[0], "completion": ""}), ["row 3: 'completion' is empty"]),
        ("a.jsonl", lines(*ROWS, {**ROWS[0], "prompt": "  "}), ["row 3: 'prompt' is empty"]),
        ("a.jsonl", lines(*ROWS, [1]), ["row 3: is the list [1]; expected an object with columns"]),
        ("a.jsonl", lines({"prompt": "x", "completion": "y", "rating": "good"}),
         ["row 1: 'rating' is the text \"good\"; expected a number"]),
        ("a.jsonl", "", ["holds no rows"]),
        ("a.jsonl", "\n\n", ["holds no rows"]),
        ("a.jsonl", "nonsense\n", ["row 1: line 1 is not valid JSON: Expecting value at column 1"]),
        ("a.jsonl", "[" + lines(ROWS[0]).strip() + "]\n", ["row 1: is list", "expected an object with columns"]),
        ("a.jsonl", gzip.compress(lines(*ROWS).encode()), ["is gzip; give it a name that ends in .gz"]),
        ("a.jsonl", lines(*ROWS).encode("utf-16"), ["is UTF-16; save it as UTF-8"]),
        ("a.jsonl.gz", lines(*ROWS), ["is not gzip; rename it without .gz"]),
        ("a.jsonl.gz", gzip.compress(lines(*ROWS * 500).encode())[:-40], ["the gzip file is cut off or broken"]),
        ("a.json", '{"data": [1]}', ["is one object ('data'); expected a list", "may stand under 'data'"]),
        ("a.json", '[{"prompt": }]', ["is not valid JSON: Expecting value at line 1, column 13"]),
        ("a.json", "3", ["holds the JSON value '3'; expected a list of objects"]),
        ("a.json", "[]", ["holds no rows"]),
        ("a.csv", "prompt,completion\nWhy?,x\n", ["label feedback needs the column 'label'"]),
        ("a.csv", "prompt,completion,label\nWhy?,Well, no.,true\nWho?,Me.,1\n", ["row 1: has 4 cells; the header"]),
        ("a.csv", "prompt,completion,label\nWhy?,x,maybe\n", ["row 1: 'label' is \"maybe\"", "--label-map maybe=true"]),
        ("a.csv", "prompt,completion,label\nWhy?,x,\n", ["row 1: 'label' is null"]),
        ("a.csv", "prompt,completion,rating\nWhy?,x,good\n", ["'rating' is the text \"good\"; expected a number"]),
        ("a.csv", 'prompt,completion,label\nWhy?,"x,true\n', ["is not valid CSV near line 2"]),
        ("a.csv", "prompt,completion,completion\n", ["the header names 'completion' twice"]),
        ("a.csv", b"prompt,completion,label\ncaf\xe9,x,1\nb,x,1\n", ["row 1: 'prompt' is not valid UTF-8"]),
        ("a.csv", "", ["holds no rows"]),
        ("a.parquet", "not parquet", ["cannot be read as Parquet"]),
        ("a.txt", "x", [".txt is no format likewise reads; expected .jsonl"]),
        ("thumbs", "x", ["no suffix is no format likewise reads"]),
        ("a.xlsx", b"PK\x03\x04", [".xlsx is no format"]),
    ],
)  # fmt: skip
def test_a_broken_file_gets_one_clear_message(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(path)
    assert message.startswith(str(path))
    for part in parts:
        assert part in message


def test_a_missing_file_names_the_nearest_one(tmp_path):
    (tmp_path / "thumbs.jsonl").write_text(lines(*ROWS))
    assert refusal(tmp_path / "thumb.jsonl").endswith("thumb.jsonl: no such file; did you mean 'thumbs.jsonl'?")
    assert "in that folder: thumbs.jsonl" in refusal(tmp_path / "x.csv")
    assert "the folder" in refusal(tmp_path / "nowhere" / "thumbs.jsonl")


def test_a_folder_is_refused_with_the_files_in_it(tmp_path):
    (tmp_path / "thumbs.jsonl").write_text(lines(*ROWS))
    assert refusal(tmp_path) == f"{tmp_path}: is a folder; give a file, such as thumbs.jsonl."


def test_a_relative_path_with_a_known_suffix_is_never_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no such file" in refusal("data/thumbs.jsonl")
    Path("data").mkdir()
    assert "no such file" in refusal("data/thumbs")


def test_a_hub_name_that_cannot_be_loaded_says_what_to_do(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = refusal("likewise-tests/no-such-feedback")
    assert message.startswith(
        "likewise-tests/no-such-feedback: there is no such file, and it cannot be loaded as a hub"
    )
    assert message.endswith("Check the name and the connection, or download it and give the file.")


def test_a_column_map_to_a_column_that_is_not_there_is_refused():
    message = refusal(ROWS, columns={"completion": "completon"})
    assert "no column 'completon' (--columns completion=completon)" in message
    assert "did you mean 'completion'?" in message


def test_other_things_are_refused_by_their_type():
    assert "feedback is a dict; expected" in refusal({"prompt": ["Why?"]})
    assert "feedback is a int; expected" in refusal(3)
    assert "no split 'test'; it has train" in refusal(
        datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), split="test"
    )
    with pytest.raises(BadConfig, match="--kind pairs: expected label, pair or rating; did you mean 'pair'"):
        read_feedback(ROWS, kind="pairs")


def test_a_data_frame_with_gaps_reads_them_as_absent():
    frame = pandas.DataFrame([{**ROWS[0], "weight": 2.0}, ROWS[1]])
    assert read_feedback(frame).rows == [LabelRow("Why?", "Because.", 1.0, 2.0), READ[1]]


# --- the real data ---------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("name, kind", [("feedback", "label"), ("train", "pair")])
def test_hh_harmless_is_read_but_for_its_four_empty_answers(shared_data, name, kind):
    path = shared_data / "hh_harmless" / f"{name}.jsonl"
    assert "4 of 1,841 rows cannot be used" in refusal(path)
    read = read_feedback(path, skip_bad_rows=True)
    assert (read.kind, len(read)) == (kind, 1837)
    assert [row.row for row in read.skipped] == [71, 409, 746, 886]


@pytest.mark.shared
def test_alpaca_eval_ratings_are_read_whole(shared_data):
    read = read_feedback(shared_data / "alpaca_eval_ratings" / "train.jsonl.gz")
    assert (read.kind, len(read), sum(len(row.completions) for row in read.rows)) == ("rating", 685, 8220)


@pytest.mark.shared
def test_awkward_exports_are_read_where_they_can_be(shared_data):
    folder = shared_data / "feedback_exports"
    labels = read_feedback(folder / "trl_unpaired_preference.jsonl", skip_bad_rows=True)
    assert [row.row for row in labels.rows] == [1, 2, 3, 4, 7]
    assert [row.reason for row in labels.skipped] == [
        "'completion' is empty",
        "'label' is null; expected true or false",
    ]
    pairs = read_feedback(folder / "trl_preference.jsonl", skip_bad_rows=True)
    assert [row.row for row in pairs.rows] == [1, 3]
    flat = read_feedback(
        folder / "helpsteer2_ratings.jsonl", columns="completion=response,rating=helpfulness", skip_bad_rows=True
    )
    assert flat.kind == "rating"
