"""`likewise objectives`: the list, one page, JSON, and a wrong name."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from likewise.cli.objectives import objectives
from likewise.errors import UnknownObjective


def test_the_list_names_every_objective(capsys):
    objectives()
    shown = capsys.readouterr().out
    first_words = [line.split()[0] for line in shown.splitlines() if line and not line.startswith(" ")]
    for name in ("bco", "bce", "kto", "dpo", "ipo", "nca", "sft"):
        assert name in first_words


def test_a_page_has_formula_options_needs_and_paper(capsys):
    objectives("bco")
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("up: ℓ(r − δ)", "thumbs: prompt, completion, label", "log-probs of a reference model", "2404.04656"):
        assert part in shown
    assert "beta 0.1 a number above 0" in shown


def test_json_has_the_same_facts(capsys):
    objectives("ipo", json=True)
    page = json.loads(capsys.readouterr().out)
    assert (page["name"], page["feedback"], page["needs"]) == ("ipo", "pair", ["reference"])
    assert {option["name"]: option["default"] for option in page["options"]} == {"tau": 0.1, "average": "sum"}
    objectives(json=True)
    assert [page["name"] for page in json.loads(capsys.readouterr().out)][:2] == ["bco", "bce"]


def test_a_wrong_name_is_an_error_with_the_nearest():
    with pytest.raises(UnknownObjective, match="did you mean 'kto'"):
        objectives("ktoo")


def test_the_command_file_waits_with_torch():
    code = "import sys, likewise.cli.objectives; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
