"""Prompts to sample from come from any file that has them."""

from __future__ import annotations

import pytest

from likewise.data.read import read_prompts
from likewise.errors import BadFeedback, BadRow


def test_prompts_of_a_feedback_file_are_taken_once_and_in_order(write_jsonl):
    rows = [
        {"prompt": "b", "completion": "x", "label": True},
        {"prompt": [{"role": "user", "content": "a"}], "completion": "x", "label": False},
        {"prompt": "b", "completion": "y", "label": False},
    ]
    assert read_prompts(write_jsonl(rows)) == ["b", [{"role": "user", "content": "a"}]]


def test_lines_of_a_text_file_are_plain_prompts(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\none\n")
    assert read_prompts(tmp_path / "p.txt") == ["one", "two"]
    assert read_prompts(tmp_path / "p.txt", limit=1) == ["one"]


def test_a_row_without_a_prompt_is_named(write_jsonl):
    path = write_jsonl([{"prompt": "a"}, {"promt": "b"}])
    with pytest.raises(BadRow, match=r"feedback.jsonl row 2: .*prompt"):
        read_prompts(path)


def test_an_empty_file_is_an_error(tmp_path):
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(BadFeedback, match="no prompts"):
        read_prompts(tmp_path / "p.jsonl")
