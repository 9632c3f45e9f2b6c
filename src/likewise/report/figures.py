"""The curves of a run: which there are, what to look for in each, and how plotly draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Metrics = Sequence[dict[str, Any]]

LEARNT, INSIDE, MACHINE = "What was learnt", "Inside the objective", "How the run went"
_COLOURS = ("a", "b", "c")
_FEWEST_TO_SMOOTH = 12
_MOST_POINTS = 4000  # a curve; more would only make the page heavy


@dataclass(frozen=True)
class Line:
    """One metric as a curve of a figure.

    Noisy: points with a smoothed line through them, else one line as logged. `error` names the metric that holds its
    standard error. `unless_zero` leaves it out where it is 0 throughout and so says nothing.
    """

    metric: str
    name: str
    noisy: bool = True
    error: str = ""
    unless_zero: bool = False


@dataclass(frozen=True)
class Subject:
    """What a figure is about; it appears where at least one of its metrics was logged."""

    name: str
    group: str
    title: str
    look_for: str
    unit: str
    lines: tuple[Line, ...]
    tick_format: str = ""


@dataclass(frozen=True)
class Curve:
    """One line's numbers: those logged, and the smoothed ones where it is noisy."""

    line: Line
    colour: str
    steps: list[int]
    values: list[float]
    smooth: list[float] | None
    errors: list[float] | None  # standard errors of single steps, smoothed as the values are

    @property
    def line_values(self) -> list[float]:
        return self.values if self.smooth is None else self.smooth

    @property
    def ends(self) -> tuple[float, float]:
        """Where it starts and ends, without the noise where that was smoothed."""
        return self.line_values[0], self.line_values[-1]


@dataclass(frozen=True)
class Figure:
    """A figure's curves; `level` is a value to compare them with, and its name."""

    subject: Subject
    curves: tuple[Curve, ...]
    level: tuple[float, str] | None = None


SUBJECTS = (
    Subject(
        "loss", LEARNT, "Loss", "It should fall, quickly at first; single steps scatter, so trust the line.",
        "loss", (Line("loss", "loss"),),
    ),
    Subject(
        "rewards", LEARNT, "Implicit rewards",
        "The two lines should part, the solid one upwards; both falling means the model is leaving good answers too.",
        "reward",
        (
            Line("reward/desirable", "desirable"), Line("reward/undesirable", "undesirable"),
            Line("reward/chosen", "chosen"), Line("reward/rejected", "rejected"),
        ),
    ),
    Subject(
        "margin", LEARNT, "Reward margin", "The distance between those two lines; above 0 the model tells them apart.",
        "reward", (Line("reward/margin", "margin"),),
    ),
    Subject(
        "accuracy", LEARNT, "Accuracy on the pairs of each step",
        "Share of pairs with the chosen answer ahead, by reward and by likelihood; it should rise above one half.",
        "share of pairs",
        (Line("objective/accuracy", "by reward"), Line("objective/ranking_accuracy", "by likelihood")),
        ".0%",
    ),
    Subject(
        "likelihood", LEARNT, "Negative log-likelihood", "It should fall: liked answers become more likely.",
        "nats per token", (Line("objective/nll_per_token", "liked answers"),),
    ),
    Subject(
        "shift", INSIDE, "Reward shift δ",
        "It should drift and then settle; a δ still moving at the end asks for more steps.",
        "reward", (Line("objective/shift", "δ", noisy=False, unless_zero=True),),
    ),
    Subject(
        "bound", INSIDE, "How tight the bound is",
        "Both should fall: the smaller the gap, the closer learning from thumbs is to learning from pairs.",
        "mean over up/down pairs",
        (Line("objective/error_term", "error term E"), Line("objective/bound_gap", "BCE bound − DPO loss")),
    ),
    Subject(
        "baseline", INSIDE, "KTO baseline",
        "How far the model seems to have moved; the band is one standard error of a step, and steps below 0 used 0.",
        "nats",
        (
            Line("objective/baseline_raw", "before the clamp", error="objective/baseline_stderr"),
            Line("objective/baseline", "after it, as used"),
        ),
    ),
    Subject(
        "target", INSIDE, "Log-ratio margin", "It should rise to its target and stay there.",
        "nats", (Line("objective/margin", "margin"), Line("objective/target", "target", noisy=False)),
    ),
    Subject(
        "grad_norm", MACHINE, "Gradient norm", "Lone spikes are clipped and harmless; a steady rise is not.",
        "norm before clipping", (Line("grad_norm", "gradient norm"),),
    ),
    Subject(
        "learning_rate", MACHINE, "Learning rate", "The plan, not a result: a warm-up, then the schedule.",
        "learning rate", (Line("learning_rate", "learning rate", noisy=False),),
    ),
    Subject(
        "speed", MACHINE, "Speed", "It should be level; a lasting drop means that something else used the machine.",
        "tokens per second", (Line("tokens_per_second", "tokens per second"),), "~s",
    ),
)  # fmt: skip

# Class means of rewards as the objective weighs them: the reward curves again.
_ELSEWHERE = {"objective/desirable_reward", "objective/undesirable_reward"}


def figures(metrics: Metrics, *, max_grad_norm: float | None = None) -> list[Figure]:
    """The figures that these metrics can fill, in reading order; pure."""
    found = []
    for subject in (*SUBJECTS, *_others(metrics)):
        curves = [c for c in (_curve(metrics, line) for line in subject.lines) if c is not None]
        if curves:
            coloured = tuple(replace(c, colour=_COLOURS[i % len(_COLOURS)]) for i, c in enumerate(curves))
            found.append(Figure(subject, coloured, _level(subject.name, metrics, coloured, max_grad_norm)))
    order = [LEARNT, INSIDE, MACHINE]
    return sorted(found, key=lambda figure: order.index(figure.subject.group))


def _others(metrics: Metrics) -> list[Subject]:
    """What an objective logs about itself and nobody has written a sentence for."""
    known = _ELSEWHERE | {m for s in SUBJECTS for line in s.lines for m in (line.metric, line.error)}
    keys = dict.fromkeys(key for step in metrics for key in step if key.startswith("objective/") and key not in known)
    return [
        Subject(
            "other-" + "".join(c if c.isalnum() else "-" for c in name), INSIDE, name.replace("_", " ").capitalize(),
            "What the objective logged about itself.", name.replace("_", " "), (Line(f"objective/{name}", name),),
        )
        for name in (key.removeprefix("objective/") for key in keys)
    ]  # fmt: skip


def _curve(metrics: Metrics, line: Line) -> Curve | None:
    logged = [m for m in metrics if _finite(m.get(line.metric))]
    if not logged or (line.unless_zero and all(m[line.metric] == 0 for m in logged)):
        return None
    values = [float(m[line.metric]) for m in logged]
    window = smoothing_window(len(values)) if line.noisy else 1
    drawn = _drawn(len(values))
    errors = None
    if line.error and all(_finite(m.get(line.error)) for m in logged):
        errors = smoothed([float(m[line.error]) for m in logged], window, drawn)
    return Curve(
        line=line,
        colour=_COLOURS[0],
        steps=[int(logged[i]["step"]) for i in drawn],
        values=[values[i] for i in drawn],
        smooth=smoothed(values, window, drawn) if window > 1 else None,
        errors=errors,
    )


def _drawn(count: int) -> list[int]:
    """Which of so many points are drawn: every k-th where there are very many, and always the last."""
    every = max(1, -(-count // _MOST_POINTS))
    return [*range(0, count - 1, every), count - 1]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def smoothing_window(count: int) -> int:
    """Steps averaged for one point of a smoothed line: odd, about a twelfth of all; 1 (none) for short runs."""
    return 1 if count < _FEWEST_TO_SMOOTH else max(5, count // 12 // 2 * 2 + 1)


def smoothed(values: Sequence[float], window: int, places: Sequence[int] | None = None) -> list[float]:
    """Mean of the `window` values around each place (all if not given); of those there are at the ends."""
    # No running sum: one huge value would spoil all that follow it.
    column, half = np.asarray(values, dtype=float), window // 2
    places = range(len(values)) if places is None else places
    return [float(column[max(0, i - half) : i + half + 1].mean()) for i in places]


def _level(
    name: str, metrics: Metrics, curves: Sequence[Curve], max_grad_norm: float | None
) -> tuple[float, str] | None:
    if name == "accuracy":
        return 0.5, "chance"
    first = metrics[0]
    if name == "loss" and first["step"] == 1 and "log_ratio/mean" in first and _finite(first["loss"]):
        return float(first["loss"]), "model = reference"
    if name == "grad_norm" and max_grad_norm is not None and max(curves[0].values) > 0.7 * max_grad_norm:
        return max_grad_norm, "clipped above"
    return None


# --- drawing ---------------------------------------------------------------------------------------------------------
# Colours are names such as "--a"; the page puts the palette of the reader's light or dark mode in their place.


def plotly_figure(figure: Figure) -> dict[str, Any]:
    """`data` and `layout` as plotly.js takes them; pure."""
    traces: list[dict[str, Any]] = []
    several = len(figure.curves) > 1
    for curve in figure.curves:
        name = curve.line.name if several else ""
        traces += _band(curve) if curve.errors else []
        if curve.smooth is None:
            traces.append(_line(curve, curve.values, name or curve.line.name, dashed=curve.colour != "a"))
        else:
            traces.append(_points(curve, f"{name} this step".strip()))
            traces.append(_line(curve, curve.smooth, f"{name} mean".strip(), dashed=curve.colour != "a"))
    if figure.level is not None:
        steps = [s for c in figure.curves for s in c.steps]
        dots = {"color": "--muted", "width": 1.5, "dash": "dot"}
        traces.append(_quiet(x=[min(steps), max(steps)], y=[figure.level[0]] * 2, line=dots))
    return {"data": traces, "layout": _layout(figure)}


def _points(curve: Curve, name: str) -> dict[str, Any]:
    marker = {"color": f"--{curve.colour}", "size": 3.5, "opacity": 0.38}
    return _trace(curve.steps, curve.values, name, mode="markers", marker=marker)


def _line(curve: Curve, values: list[float], name: str, *, dashed: bool) -> dict[str, Any]:
    line = {"color": f"--{curve.colour}", "width": 2, "dash": "6px,3px" if dashed else "solid"}
    return _trace(curve.steps, values, name, mode="lines", line=line)


def _trace(x: list[int], y: list[float], name: str, **style: Any) -> dict[str, Any]:
    hover = "%{y:.4~g}<extra>" + name + "</extra>"
    return {"type": "scatter", "x": x, "y": y, "name": name, "hovertemplate": hover, **style}


def _band(curve: Curve) -> list[dict[str, Any]]:
    assert curve.errors is not None
    low = [v - e for v, e in zip(curve.line_values, curve.errors, strict=True)]
    high = [v + e for v, e in zip(curve.line_values, curve.errors, strict=True)]
    bare = {"width": 0, "color": "--clear"}
    return [
        _quiet(x=curve.steps, y=low, line=bare),
        _quiet(x=curve.steps, y=high, line=bare, fill="tonexty", fillcolor=f"--{curve.colour}-soft"),
    ]


def _quiet(**trace: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "hoverinfo": "skip", **trace}


def _log_scale(figure: Figure) -> bool:
    """Positive values that span more than two orders of magnitude; only the bound's can."""
    values = [v for c in figure.curves for v in c.values]
    return figure.subject.name == "bound" and min(values) > 0 and max(values) > 100 * min(values)


def _layout(figure: Figure) -> dict[str, Any]:
    axis = {
        "fixedrange": True, "gridcolor": "--rule", "linecolor": "--rule", "zerolinecolor": "--zero", "zerolinewidth": 1,
        "tickcolor": "--rule", "automargin": True,
    }  # fmt: skip
    y = axis | {"title": {"text": figure.subject.unit, "standoff": 10}, "nticks": 6, "exponentformat": "power"}
    if figure.subject.tick_format:
        y["tickformat"] = figure.subject.tick_format
    if _log_scale(figure):
        y["type"] = "log"
    steps = [s for c in figure.curves for s in c.steps]
    room = max(1.0, (max(steps) - min(steps)) * 0.015)
    x = axis | {
        "title": {"text": "optimizer step", "standoff": 8}, "showgrid": False, "zeroline": False, "nticks": 7,
        "tickformat": ",d", "range": [min(steps) - room, max(steps) + room], "hoverformat": ",d",
    }  # fmt: skip
    return {
        "showlegend": False, "hovermode": "x unified", "dragmode": False, "autosize": True, "height": 240,
        "margin": {"l": 4, "r": 16, "t": 8, "b": 4}, "paper_bgcolor": "--clear", "plot_bgcolor": "--clear",
        "font": {"color": "--muted", "size": 12, "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"},
        "hoverlabel": {"bgcolor": "--paper", "bordercolor": "--rule", "font": {"color": "--ink", "size": 12}},
        "xaxis": x, "yaxis": y,
    }  # fmt: skip
