"""Figures hold what was logged and nothing else, and plotly takes what they become."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import pytest
from run_records import simulated_metrics

from likewise.report.figures import figures, plotly_figure, smoothed, smoothing_window

COLOUR_KEYS = ("color", "fillcolor", "bgcolor", "bordercolor", "gridcolor", "linecolor", "tickcolor", "zerolinecolor",
               "paper_bgcolor", "plot_bgcolor")  # fmt: skip


def names(metrics, **options):
    return [f.subject.name for f in figures(metrics, **options)]


def test_each_objective_gets_the_figures_of_what_it_logs():
    machine = ["grad_norm", "learning_rate", "speed"]
    assert names(simulated_metrics("bco")) == ["loss", "rewards", "margin", "shift", "bound", *machine]
    assert names(simulated_metrics("bce")) == ["loss", "rewards", "margin", "bound", *machine]  # its shift is always 0
    assert names(simulated_metrics("kto")) == ["loss", "rewards", "margin", "baseline", *machine]
    assert names(simulated_metrics("dpo")) == ["loss", "rewards", "margin", "accuracy", *machine]
    assert names(simulated_metrics("ipo")) == ["loss", "rewards", "margin", "accuracy", "target", *machine]
    assert names(simulated_metrics("sft")) == ["loss", "likelihood", *machine]


def test_a_quantity_nobody_wrote_a_sentence_for_is_drawn_all_the_same():
    metrics = [m | {"objective/new_thing": 2.0 * m["step"]} for m in simulated_metrics("sft", steps=3)]
    found = {f.subject.name: f for f in figures(metrics)}
    assert found["other-new-thing"].curves[0].values == [2.0, 4.0, 6.0]


def test_a_curve_has_the_steps_at_which_its_metric_was_defined():
    metrics = simulated_metrics("bco", steps=6)
    del metrics[2]["reward/undesirable"]
    metrics[4]["reward/undesirable"] = math.nan
    rewards = next(f for f in figures(metrics) if f.subject.name == "rewards")
    desirable, undesirable = rewards.curves
    assert desirable.steps == [1, 2, 3, 4, 5, 6]
    assert undesirable.steps == [1, 2, 4, 6]
    assert undesirable.values == [metrics[i]["reward/undesirable"] for i in (0, 1, 3, 5)]


def test_a_metric_that_was_never_logged_leaves_no_trace():
    metrics = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}]
    assert names(metrics) == ["loss"]
    assert figures([]) == []


def test_smoothing_is_the_mean_of_the_values_around():
    values = [1.0, 5.0, 3.0, 7.0, 9.0]
    assert smoothed(values, 3) == [3.0, 3.0, 5.0, 19 / 3, 8.0]
    assert smoothed(values, 1) == values
    assert smoothed(values, 3, [0, 4]) == [3.0, 8.0]


def test_a_huge_value_spoils_only_its_neighbours():
    assert smoothed([1.0, 1e300, 1.0, 1.0, 3.0], 3)[3:] == [5 / 3, 2.0]


@pytest.mark.parametrize(("count", "window"), [(0, 1), (11, 1), (12, 5), (60, 5), (200, 17), (1200, 101)])
def test_the_window_is_odd_and_about_a_twelfth_of_the_run(count, window):
    assert smoothing_window(count) == window


def test_noisy_curves_are_points_with_a_line_and_planned_ones_a_line_alone():
    metrics = simulated_metrics("bco")
    found = {f.subject.name: plotly_figure(f)["data"] for f in figures(metrics)}
    modes = {name: [t["mode"] for t in traces if t.get("hoverinfo") != "skip"] for name, traces in found.items()}
    assert modes["rewards"] == ["markers", "lines"] * 2
    assert modes["learning_rate"] == ["lines"]
    logged = [m["reward/desirable"] for m in metrics]
    assert found["rewards"][0]["y"] == logged
    # An oracle for the middle of the smoothed line; 17 steps for a run of 200.
    expected = np.convolve(logged, np.ones(17) / 17, mode="valid")
    np.testing.assert_allclose(found["rewards"][1]["y"][8:-8], expected, rtol=1e-12)


def test_the_band_of_the_kto_baseline_is_one_standard_error_either_side():
    metrics = simulated_metrics("kto", steps=8)
    drawn = plotly_figure(next(f for f in figures(metrics) if f.subject.name == "baseline"))["data"]
    low, high = drawn[0], drawn[1]
    raw = np.array([m["objective/baseline_raw"] for m in metrics])
    error = np.array([m["objective/baseline_stderr"] for m in metrics])
    np.testing.assert_allclose(low["y"], raw - error)
    np.testing.assert_allclose(high["y"], raw + error)
    assert high["fill"] == "tonexty"


def test_the_loss_is_compared_with_its_value_at_the_reference():
    loss = figures(simulated_metrics("bco", steps=20))[0]
    assert loss.level is not None
    assert loss.level[0] == pytest.approx(math.log(2))
    # sft has no reference, and a resumed record need not start at step 1.
    assert figures(simulated_metrics("sft", steps=20))[0].level is None
    assert figures(simulated_metrics("bco", steps=20)[5:])[0].level is None


def test_a_bound_that_explodes_is_drawn_on_a_logarithmic_axis():
    metrics = simulated_metrics("bco", steps=20)
    metrics[7]["objective/error_term"] = 1e120
    bound = next(f for f in figures(metrics) if f.subject.name == "bound")
    assert plotly_figure(bound)["layout"]["yaxis"]["type"] == "log"


def test_very_long_runs_are_thinned_but_keep_both_ends():
    metrics = [{"step": i, "loss": float(i)} for i in range(1, 20_001)]
    curve = figures(metrics)[0].curves[0]
    assert len(curve.steps) == 4001
    assert (curve.steps[0], curve.steps[-1]) == (1, 20_000)
    assert curve.values == [float(s) for s in curve.steps]
    assert curve.smooth[2000] == pytest.approx(10_001)  # of all steps around it, not of those drawn


@pytest.mark.parametrize("objective", ["bco", "kto", "dpo"])
def test_plotly_knows_every_property(objective):
    for figure in figures(simulated_metrics(objective, steps=30), max_grad_norm=1.0):
        go.Figure(with_real_colours(plotly_figure(figure)))  # it raises for a property or value it does not know


def with_real_colours(value, key=""):
    if isinstance(value, dict):
        return {k: with_real_colours(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [with_real_colours(v, key) for v in value]
    if key in COLOUR_KEYS:
        assert str(value).startswith("--"), f"{key} is {value!r}, which does not change with the reader's mode"
        return "#123456"
    return value
