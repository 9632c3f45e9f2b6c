"""Every mistake a user makes gets one message that says what, where and how to mend it; exit code 2; no traceback."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from typing import Any

import pytest

from likewise.cli import main


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Call the command line in this process: (exit code, standard error)."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["likewise", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def align(run, tiny_model, tmp_path) -> Callable[..., str]:
    """`likewise align` on the tiny model, which must refuse: its message, line ends folded."""

    def call(feedback: object, *more: object, model: object = tiny_model, out: object = None) -> str:
        target = out or tmp_path / "out"
        common = ("--max-steps", 3, "--batch-size", 4, "--report-samples", 0)
        code, message = run(
            "align", "--model", model, "--feedback", feedback, "--output-dir", target, *common, *more
        )  # fmt: skip
        assert code == 2, message
        assert "Traceback" not in message
        assert not (tmp_path / "out" / "model.safetensors").exists()
        return " ".join(message.split())

    return call


GOOD: dict[str, Any] = {"prompt": "say: ", "completion": "yes", "label": True}
OTHER: dict[str, Any] = {"prompt": "more: ", "completion": "no", "label": False}
CHAT = [{"role": "user", "content": "hi"}]


def test_missing_file(align, tmp_path):
    (tmp_path / "thumbs.jsonl").write_text("")
    assert "did you mean 'thumbs.jsonl'" in align(tmp_path / "thumb.jsonl")


def test_wrong_format(align, tmp_path):
    (tmp_path / "thumbs.xlsx").write_text("x")
    message = align(tmp_path / "thumbs.xlsx")
    assert ".xlsx is no format likewise reads" in message
    assert ".jsonl" in message


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"prompt": "a", "completion": "b"}, ["row 2", "label"]),
        ({"prompt": "a", "completoin": "b", "label": True}, ["row 2", "completion", "'completoin'"]),
        ({**GOOD, "label": "yes"}, ["row 2", "'label'", '"yes"', "--label-map yes=true,no=false"]),
        ({**GOOD, "label": None}, ["row 2", "'label'", "null"]),
        ({**GOOD, "completion": ""}, ["row 2", "'completion'", "empty", "--skip-bad-rows"]),
        ({**GOOD, "prompt": ""}, ["row 2", "'prompt'", "empty"]),
        ({**GOOD, "prompt": [{"role": "system", "content": "x"}]}, ["row 2", "'prompt'", "user"]),
        ({**GOOD, "prompt": [*CHAT, {"role": "bot", "content": "x"}]}, ["row 2", "role", "bot", "assistant"]),
    ],
)
def test_bad_rows(align, write_jsonl, row, parts):
    message = align(write_jsonl([GOOD, row, OTHER]))
    for part in ["feedback.jsonl", *parts]:
        assert part in message


def test_rating_that_is_text(align, write_jsonl):
    rows = [{"prompt": "a", "completions": [{"text": "x", "rating": 3}, {"text": "y", "rating": "good"}]}]
    message = align(write_jsonl(rows))
    assert "row 1" in message
    assert "rating" in message
    assert '"good"' in message


def test_broken_json_names_its_line(align, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(OTHER) + "\n{broken\n")
    assert "line 3 is not valid JSON" in align(path)


def test_invalid_utf8_names_its_row(align, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes((json.dumps(GOOD) + "\n").encode() + b'{"prompt": "\xff\xfe", "completion": "b", "label": true}\n')
    message = align(path)
    assert "row 2" in message
    assert "UTF-8" in message


@pytest.mark.parametrize("objective", ["bco", "kto"])
@pytest.mark.parametrize(("label", "side"), [(True, "up"), (False, "down")])
def test_labels_that_are_all_equal(align, write_jsonl, thumbs, objective, label, side):
    rows = [{**row, "label": label} for row in thumbs(8)]
    message = align(write_jsonl(rows), "--objective", objective)
    assert f"all 8 labels are thumbs {side}" in message
    assert "--allow-one-class" in message
    assert ("--objective sft" in message) == label


def test_the_named_option_goes_on_with_one_class(run, write_jsonl, thumbs, tiny_model, tmp_path):
    path = write_jsonl([{**row, "label": True} for row in thumbs(8)])
    code, message = run(
        "align", "--model", tiny_model, "--feedback", path, "--output-dir", tmp_path / "o", "--max-steps", 2,
        "--batch-size", 4, "--report-samples", 0, "--allow-one-class",
    )  # fmt: skip
    assert code == 0, message
    assert (tmp_path / "o" / "model.safetensors").exists()


def test_pairs_from_thumbs_that_share_no_prompt(align, write_jsonl, thumbs):
    message = align(write_jsonl(thumbs(8)), "--objective", "dpo")
    assert "cannot make pairs" in message
    assert "bco" in message


def test_unknown_objective_and_options(align, write_jsonl, thumbs):
    path = write_jsonl(thumbs(8))
    assert "did you mean 'bco'" in align(path, "--objective", "bcoo")
    assert "did you mean 'learning_rate'" in align(path, "--learning-rat", "1e-4")
    assert "did you mean 'beta'" in align(path, "--bet", "0.2")
    message = align(path, "--beta", "-1")
    assert "'beta'" in message
    assert "above 0" in message
    message = align(path, "--epochs", "many")
    assert "--epochs" in message
    assert "many" in message


def test_unknown_command(run):
    code, message = run("algin")
    assert code == 2
    assert "align" in message
    assert "Traceback" not in message


def test_keys_of_a_configuration_file_are_checked_too(align, write_jsonl, thumbs, tmp_path):
    (tmp_path / "run.yaml").write_text("batchsize: 4\n")
    assert "did you mean 'batch_size'" in align(write_jsonl(thumbs(8)), "--config", tmp_path / "run.yaml")
    (tmp_path / "run.yaml").write_text("- a\n- b\n")
    assert "expected keys and values" in align(write_jsonl(thumbs(8)), "--config", tmp_path / "run.yaml")
    assert "cannot be read" in align(write_jsonl(thumbs(8)), "--config", tmp_path / "none.yaml")


def test_model_folder_without_tokenizer_or_template(align, write_jsonl, thumbs, tiny_model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink()
    message = align(write_jsonl(thumbs(8)), model=bare)
    assert "no chat template" in message
    assert "--chat-template" in message
    for file in bare.glob("tokenizer*"):
        file.unlink()
    message = align(write_jsonl(thumbs(8)), model=bare)
    assert "no tokenizer" in message
    assert "--tokenizer" in message


def test_model_that_is_not_there(align, write_jsonl, thumbs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = align(write_jsonl(thumbs(8)), model=tmp_path / "nothing")
    assert "nothing" in message
    assert "no such folder" in message


def test_tokenizer_of_another_model(align, write_jsonl, thumbs, tiny_model, tmp_path):
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(tiny_model)
    other.add_tokens([f"<extra{i}>" for i in range(50)])
    other.save_pretrained(tmp_path / "other")
    message = align(write_jsonl(thumbs(8)), "--tokenizer", tmp_path / "other")
    assert "do not belong together" in message


def test_answer_that_is_too_long(align, write_jsonl, thumbs):
    rows = [*thumbs(4), {"prompt": CHAT, "completion": "ab " * 100, "label": True}]
    message = align(write_jsonl(rows), "--max-tokens", 128, "--max-prompt-tokens", 64)
    assert "row 5" in message
    assert "'completion' has 301 tokens" in message
    assert "--long-completions skip" in message


def test_output_folder_that_is_not_empty(align, write_jsonl, thumbs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    message = align(write_jsonl(thumbs(8)), out=tmp_path / "full")
    assert "is not empty" in message
    assert "--resume" in message
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_output_folder_that_cannot_be_written(align, write_jsonl, thumbs, tmp_path):
    (tmp_path / "file").write_text("")
    message = align(write_jsonl(thumbs(8)), out=tmp_path / "file" / "out")
    assert "cannot be written" in message
    assert "is a file" in align(write_jsonl(thumbs(8)), out=tmp_path / "file")


def test_a_refused_run_leaves_the_folder_ready_for_the_next(align, write_jsonl, thumbs, tmp_path):
    align(write_jsonl(thumbs(8)), "--objective", "dpo")
    assert not any((tmp_path / "out").iterdir())


def test_merge_without_an_adapter(align, write_jsonl, thumbs):
    assert "--lora-rank 16" in align(write_jsonl(thumbs(8)), "--merge")


def test_label_map_in_a_wrong_shape(align, write_jsonl, thumbs):
    assert "yes=true,no=false" in align(write_jsonl(thumbs(8)), "--label-map", "yes")
