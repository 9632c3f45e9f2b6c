"""The page of objectives is what the docstrings say, and every docstring says enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.objectives import OBJECTIVES
from likewise.objectives.docs import facts, read_sections, render

PAGE = Path(__file__).resolve().parents[2] / "docs" / "objectives.md"


def test_the_committed_page_is_the_one_the_docstrings_make():
    mend = "run: python -m likewise.objectives.docs > docs/objectives.md"
    assert PAGE.read_text(encoding="utf-8") == render(), mend


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_docstring_has_formula_source_and_a_meaning_for_each_option(objective):
    page = facts(objective)
    for key in ("summary", "formula", "units", "source", "logged"):
        assert page[key], key
    assert all(option["meaning"] for option in page["options"])
    assert "arXiv:" in page["source"]
    assert bool(page["state"]) == (objective.memory is not None)
    assert ("Raises" in read_sections(objective.function)) == ("reference" in objective.needs)


def test_continued_lines_belong_to_the_entry_before():
    def example(*, rate=1.0, other=2.0):
        """What it is.

        Formula: a;
            b.
        Options:
            rate: how fast,
                in steps.
            other: more.
        """

    sections = read_sections(example)
    assert sections[""].strip() == "What it is."
    assert sections["Formula"].split() == ["a;", "b."]
    assert "rate: how fast," in sections["Options"]
