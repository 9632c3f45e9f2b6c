"""Names, numbers and durations as a reader wants them."""

from __future__ import annotations

import pytest

from likewise.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.500"), (-0.04192, "−0.0419"), (12.345, "12.3"), (6849.2, "6,849"), (2e-5, "2e−5"),
     (1.234e-7, "1.23e−7"), (1e9, "1e9"), (float("inf"), "∞"), (float("nan"), "undefined")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("first", "last", "text"),
    [(0.025, 0.3541, "0.025 → 0.354"), (0.0, -0.0566, "0 → −0.0566"), (6602.0, 6849.0, "6,602 → 6,849"),
     (9.52e-7, 0.0, "9.52e−7 → 0"), (0.0, 0.0, "0 → 0")],
)  # fmt: skip
def test_both_ends_of_a_curve_have_the_same_decimals(first, last, text):
    assert words.change(first, last) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1841, "1,841"),
        (2e-5, "2e-5"),
        (0.1, "0.1"),
        (True, "yes"),
        ("cached", "cached"),
        ("/home/me/x.jsonl", "x.jsonl"),
    ],
)
def test_settings_are_as_they_would_be_typed(value, text):
    assert words.plain(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.26, "4.3 s"), (59.0, "59 s"), (59.9, "1 min 0 s"), (97.0, "1 min 37 s"), (7384.0, "2 h 3 min")],
)
def test_durations(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "local", "short"),
    [("org/model", False, "org/model"), ("gpt2", False, "gpt2"), ("/a/model", True, "model"),
     ("./model/", True, "model"), ("a/b/c", True, "c"), (r"C:\models\m", True, "m"), ("../x", True, "x")],
)  # fmt: skip
def test_paths_are_told_from_hub_names(name, local, short):
    assert words.is_local(name) is local
    assert words.short_name(name) == short
