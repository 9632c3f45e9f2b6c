"""The record of an objective: options from the signature, their checks, and the table."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys

import pytest
import torch
from objective_batches import random_batch

from likewise.errors import BadConfig, UnknownObjective
from likewise.objectives import OBJECTIVES, add_sums, check_options, get_objective


def test_the_table_says_what_each_objective_learns_from_needs_and_takes():
    table = {name: (o.feedback, set(o.needs), o.options) for name, o in OBJECTIVES.items()}
    reference = {"reference"}
    assert table == {
        "bco": ("label", reference, {"beta": 0.1, "shift_rate": 0.1}),
        "bce": ("label", reference, {"beta": 0.1}),
        "kto": (
            "label",
            {"reference", "mismatched"},
            {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
        ),
        "sft": ("label", set(), {"average": "token_mean"}),
        "dpo": ("pair", reference, {"beta": 0.1}),
        "ipo": ("pair", reference, {"tau": 0.1, "average": "sum"}),
        "nca": ("pair", reference, {"beta": 0.01}),
    }
    assert type(OBJECTIVES) is dict
    assert all(objective.name == name for name, objective in OBJECTIVES.items())


def test_the_record_is_frozen_and_its_options_are_a_copy():
    bco = OBJECTIVES["bco"]
    with pytest.raises(AttributeError):
        bco.name = "other"
    bco.options["beta"] = 7
    assert bco.options["beta"] == 0.1


def test_an_unknown_name_brings_the_nearest_and_the_list():
    with pytest.raises(UnknownObjective, match=r"no objective 'bc0'; did you mean 'bco'\?\nThere are bco, bce, kto"):
        get_objective("bc0")
    assert get_objective("kto") is OBJECTIVES["kto"]


def test_given_options_join_the_defaults():
    assert check_options(OBJECTIVES["bco"], {"beta": 1}) == {"beta": 1.0, "shift_rate": 0.1}
    assert check_options(OBJECTIVES["bco"], {"beta": "1e-3"})["beta"] == 0.001
    assert check_options(OBJECTIVES["ipo"], {"average": "token_mean"})["average"] == "token_mean"


def test_an_unknown_option_brings_the_nearest_and_the_list():
    message = r"'bco' has no option 'bata'; did you mean 'beta'\?\nIts options: beta \(0.1\), shift_rate \(0.1\)"
    with pytest.raises(BadConfig, match=message):
        check_options(OBJECTIVES["bco"], {"bata": 0.1})


@pytest.mark.parametrize(
    "name, option, value, expected",
    [
        ("bco", "beta", 0, "a number above 0"),
        ("dpo", "beta", -0.1, "a number above 0"),
        ("dpo", "beta", "big", "a number above 0"),
        ("dpo", "beta", True, "a number above 0"),
        ("dpo", "beta", None, "a number above 0"),
        ("dpo", "beta", math.nan, "a number above 0"),
        ("dpo", "beta", math.inf, "a number above 0"),
        ("bco", "shift_rate", 0, "a number above 0 and at most 1"),
        ("bco", "shift_rate", 1.5, "a number above 0 and at most 1"),
        ("kto", "desirable_weight", -1, "a number of at least 0"),
        ("ipo", "tau", 0, "a number above 0"),
        ("ipo", "average", "mean", "sum or token_mean"),
        ("sft", "average", ["sum"], "sum or token_mean"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_what_could(name, option, value, expected):
    with pytest.raises(BadConfig) as caught:
        check_options(OBJECTIVES[name], {option: value})
    assert str(caught.value).startswith(f"option {option!r} of objective {name!r} is {value!r}; expected {expected}.")


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_function_takes_every_option_and_refuses_others(objective):
    options, batch = objective.options, random_batch(objective, 0)
    state = objective.init(**options)
    sums = objective.observe(batch, state, **options)
    objective.update(state, sums, **options)
    objective.loss(batch, state, **options)
    objective.describe(batch, state, **options)
    for call in (
        lambda: objective.init(wrong=1),
        lambda: objective.observe(batch, state, wrong=1),
        lambda: objective.update(state, sums, wrong=1),
        lambda: objective.loss(batch, state, wrong=1),
        lambda: objective.describe(batch, state, wrong=1),
    ):
        with pytest.raises(BadConfig, match="no option 'wrong'"):
            call()


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_defaults_hold_where_an_option_is_left_out(objective):
    batch = random_batch(objective, 1)
    state = objective.init()
    state = objective.update(state, objective.observe(batch, state))
    full = objective.update(objective.init(), objective.observe(batch, objective.init(), **objective.options))
    torch.testing.assert_close(state, full, rtol=0, atol=0)
    assert torch.equal(objective.loss(batch, state), objective.loss(batch, state, **objective.options))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_options_are_the_keyword_only_arguments(objective):
    parameters = inspect.signature(objective.function).parameters.values()
    assert objective.options == {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert check_options(objective, objective.options) == objective.options


def test_sums_add_field_by_field():
    one = {"a": (torch.tensor(1.0), torch.tensor(2.0))}
    two = {"a": (torch.tensor(10.0), torch.tensor(20.0)), "b": (torch.tensor(5.0), torch.tensor(1.0))}
    assert add_sums(one, two) == {"a": (11.0, 22.0), "b": (5.0, 1.0)}
    assert add_sums() == {}


def test_objectives_bring_in_nothing_heavier_than_torch():
    code = (
        "import sys, likewise.objectives; "
        "print([m for m in ('transformers','datasets','sklearn','plotly','peft','accelerate') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
