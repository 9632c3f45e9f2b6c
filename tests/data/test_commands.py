"""`likewise check` and `likewise convert`, as their functions are called by the command line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from likewise.cli.check import check
from likewise.cli.convert import convert
from likewise.data import read_feedback
from likewise.errors import BadConfig, BadFeedback, BadModel


@pytest.fixture
def thumbs(tmp_path):
    path = tmp_path / "thumbs.jsonl"
    rows = [{"prompt": f"ask {i}", "completion": f"answer {i:03}", "label": i % 2 == 0} for i in range(300)]
    rows[6]["completion"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "id": "é1"}) + "\n")
    return path


def test_check_prints_one_screen_with_the_verdict(thumbs, capsys):
    check(str(thumbs))
    out = capsys.readouterr().out
    for part in (
        "299 thumbs of 300 rows",
        "149 up, 150 down (49.8% up)",
        "bad row 7: 'completion' is empty (1)",
        "FIT WITH CAUTION",
        "! 1 row of 300 cannot be used.",
    ):
        assert part in out
    assert len(out.splitlines()) <= 30


def test_check_as_json_prints_nothing_else(thumbs, capsys):
    check(str(thumbs), json=True)
    data = json.loads(capsys.readouterr().out)
    assert (data["verdict"], data["rows"], data["empty_answers"]) == ("FIT WITH CAUTION", 299, 1)


def test_check_ends_with_code_2_where_the_feedback_is_not_fit(pairs, capsys):
    with pytest.raises(SystemExit) as caught:
        check(str(pairs))
    assert caught.value.code == 2
    assert "NOT FIT" in capsys.readouterr().out


def test_check_takes_names_and_labels_as_text(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text(
        "question,answer,vote\n" + "".join(f"q{i},a{i:03},{'up' if i % 2 else 'down'}\n" for i in range(300))
    )
    check(str(path), columns="prompt=question,completion=answer,label=vote", label_map="up=true,down=false")
    assert "150 up, 150 down" in capsys.readouterr().out


def test_check_with_a_model_that_is_none_says_so(thumbs, tmp_path):
    with pytest.raises(BadModel):
        check(str(thumbs), tokenizer=str(tmp_path))


@pytest.mark.shared
def test_check_counts_in_tokens_with_a_real_tokenizer(shared_data, capsys):
    tokenizer = str(shared_data / "tokenizers" / "pythia")
    check(
        str(shared_data / "hh_harmless" / "feedback.jsonl"), tokenizer=tokenizer, max_tokens=128, max_prompt_tokens=64
    )
    out = capsys.readouterr().out
    assert "prompt, tokens" in out
    assert "128 tokens, at most 64 of prompt" in out


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz"])
def test_convert_writes_rows_that_read_back(pairs, tmp_path, capsys, name):
    out = tmp_path / name
    convert(str(pairs), to="label", output=out)
    assert [(r.completion, r.label, r.id) for r in read_feedback(out).rows] == [
        ("Because.", 1.0, "é1/chosen"),
        ("No.", 0.0, "é1/rejected"),
    ]
    printed = capsys.readouterr().out
    assert "1 pair → 2 thumbs (both sides)" in printed
    assert f"Wrote 2 rows to {out}." in printed
    raw = gzip.decompress(out.read_bytes()) if name.endswith(".gz") else out.read_bytes()
    assert "é1" in raw.decode()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["pairs.jsonl", name])


def test_convert_to_the_same_kind_is_a_checked_copy(pairs, tmp_path, capsys):
    convert(str(pairs), to="pair", output=tmp_path / "copy.jsonl")
    assert read_feedback(tmp_path / "copy.jsonl").rows == read_feedback(pairs).rows
    assert "The file holds pair rows already: a checked copy." in capsys.readouterr().out


def test_convert_keeps_a_file_that_is_there_unless_told_otherwise(pairs, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(BadConfig, match=r"exists already\. Replace it with --overwrite"):
        convert(str(pairs), to="label", output=out)
    assert out.read_text() == "mine"
    convert(str(pairs), to="label", output=out, overwrite=True)
    assert len(read_feedback(out)) == 2


def test_convert_writes_bad_rows_beside_the_output(thumbs, tmp_path, capsys):
    out = tmp_path / "copy.jsonl"
    with pytest.raises(BadFeedback, match="row 7: 'completion' is empty"):
        convert(str(thumbs), to="label", output=out)
    assert not out.exists()
    convert(str(thumbs), to="label", output=out, skip_bad_rows=True)
    skipped = tmp_path / "copy.jsonl.skipped.jsonl"
    assert json.loads(skipped.read_text())["row"] == 7
    assert f"Skipped 1 bad row; listed in {skipped}." in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, part",
    [("out.csv", "ends in .jsonl or .jsonl.gz"), ("no/out.jsonl", "the folder"), ("out", "ends in .jsonl")],
)
def test_convert_refuses_an_output_it_cannot_write(pairs, tmp_path, name, part):
    with pytest.raises(BadConfig, match=part):
        convert(str(pairs), to="label", output=tmp_path / name)


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    code = (
        "import resource, sys\n"
        "from likewise.data.write import write_rows\n"
        "from likewise.errors import CannotSave\n"
        "from likewise.schema import LabelRow\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # as a disk with 50 kB left\n"
        "try: write_rows([LabelRow('p', 'x' * 1000, 1.0)] * 1000, sys.argv[1], overwrite=True)\n"
        "except CannotSave as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{out}: cannot be written: ")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out.jsonl", "mine")]


def test_the_commands_import_nothing_heavy():
    code = (
        "import sys, likewise.cli.check, likewise.cli.convert, likewise.data;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'sklearn', 'numpy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
