"""True win rates against hand-computed numbers and published intervals."""

from __future__ import annotations

import pytest

from likewise.demo.scores import true_win_rate
from likewise.errors import BadFeedback
from likewise.estimates import mean, proportion


def test_ties_count_half():
    result = true_win_rate([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 5.0, 1.0])
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.win_rate.value == 2.5 / 4
    assert (result.mean_a.value, result.mean_b.value, result.mean_gain.value) == (2.5, 2.0, 0.5)


def test_a_model_against_itself_wins_half():
    assert true_win_rate([1.0, -2.0, 3.0], [1.0, -2.0, 3.0]).win_rate.value == 0.5


def test_swapping_the_sides_mirrors_the_win_rate():
    a, b = [1.0, 2.0, 3.0, 4.0, 0.0], [0.0, 2.0, 5.0, 1.0, -1.0]
    there, back = true_win_rate(a, b).win_rate, true_win_rate(b, a).win_rate
    assert there.value + back.value == pytest.approx(1)
    assert there.low + back.high == pytest.approx(1)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_win_rate_interval_is_wilsons(successes, trials, low, high):
    found = proportion(successes, trials)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_mean_interval_is_1_96_standard_errors():
    # The squared deviations of 1, 2, 3, 4 add up to 5; 1.959964 * sqrt(5 / 3) / 2 = 1.265151.
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert (found.value, found.low, found.high) == (2.5, pytest.approx(2.5 - 1.265151), pytest.approx(2.5 + 1.265151))


def test_a_steady_gain_has_an_interval_of_no_width():
    gain = true_win_rate([1.0, 5.0, 9.0], [0.0, 4.0, 8.0]).mean_gain
    assert (gain.value, gain.low, gain.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_sides_that_cannot_be_paired_are_refused(a, b):
    with pytest.raises(BadFeedback):
        true_win_rate(a, b)
