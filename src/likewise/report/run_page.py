"""One self-contained HTML page about a run: what it came to in words, curves, samples, and how to repeat it.

Nothing on the page is fetched from anywhere, and a content security policy holds it to that; text from people and
models is only ever shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from likewise.report import words
from likewise.report.figures import Figure, figures, plotly_figure, smoothing_window
from likewise.schema import Content

if TYPE_CHECKING:
    from likewise.engine.config import AlignConfig
    from likewise.engine.heldout import HeldOut
    from likewise.engine.progress import Setting
    from likewise.engine.summary import Summary

# Text colours have a contrast of at least 4.5 : 1 on `paper` and on `card`.
PALETTE = {
    "light": {
        "paper": "#fdfdfc", "card": "#f5f4f1", "ink": "#1c1e21", "muted": "#5d6268", "rule": "#e6e4df",
        "zero": "#bdbab3", "a": "#1f6391", "b": "#b0500c", "c": "#6a4c9c", "good": "#1b7443", "attention": "#975200",
        "a-soft": "rgba(31,99,145,0.13)", "b-soft": "rgba(176,80,12,0.13)", "c-soft": "rgba(106,76,156,0.13)",
        "clear": "rgba(0,0,0,0)",
    },
    "dark": {
        "paper": "#141618", "card": "#1d2023", "ink": "#e9e7e3", "muted": "#a3a8ad", "rule": "#2d3135",
        "zero": "#565b60", "a": "#7cb9e8", "b": "#f0a260", "c": "#bba6e6", "good": "#72cf9a", "attention": "#efb35f",
        "a-soft": "rgba(124,185,232,0.18)", "b-soft": "rgba(240,162,96,0.18)", "c-soft": "rgba(187,166,230,0.18)",
        "clear": "rgba(0,0,0,0)",
    },
}  # fmt: skip

_MARKS = {"✓": ("good", "as it should be"), "!": ("attention", "wants attention"), "·": ("fact", "a fact")}
_SHOWN_TURNS = 4


@dataclass(frozen=True)
class SamplePair:
    """One prompt, answered by the base and by the aligned model; true rewards where they are known."""

    prompt: Content
    base: str
    aligned: str
    base_reward: float | None = None
    aligned_reward: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What a run came to, in one sentence, and the figures behind it as (name, value).

    `good` is None where it can be called neither good nor bad.
    """

    headline: str
    details: list[tuple[str, str]]
    good: bool | None


def run_page(
    config: AlignConfig,
    settings: list[Setting],
    metrics: list[dict[str, Any]],
    summary: Summary,
    heldout: HeldOut | None,
    samples: list[SamplePair],
    facts: dict[str, Any],
    *,
    verdict: Verdict | None = None,
) -> str:
    """The page as one string of HTML; `facts` are shown as they are named."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("likewise.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Any] = {"number": words.number, "plain": words.plain, "showable": words.showable}
    environment.filters.update(filters)
    drawn = figures(metrics, max_grad_norm=config.max_grad_norm)
    source = environment.loader.get_source(environment, "run_page.js")[0] if environment.loader else ""
    scripts = [f"\n{get_plotlyjs()}\n", f"\n{source}\n"] if drawn else []
    return environment.get_template("run_page.html").render(
        policy=_policy(scripts),
        palette=PALETTE,
        scripts=scripts,
        curves=embedded_json({"palette": PALETTE, "figures": {f.subject.name: plotly_figure(f) for f in drawn}}),
        groups=[(group, [_shown(f) for f in found]) for group, found in groupby(drawn, lambda f: f.subject.group)],
        smoothing=smoothing_window(len(metrics)),
        title=_title(config),
        origin=_origin(config, metrics),
        verdict=verdict,
        findings=[(f.mark, *_MARKS[f.mark], f.text) for f in summary.findings],
        heldout=heldout if heldout is not None and heldout.estimate is not None else None,
        samples=[_sample(pair) for pair in samples],
        facts=facts,
        settings=settings,
        config=_config_text(config),
        repeat=_repeat(config),
        made_with=made_with(config),
    )


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(scripts: list[str]) -> str:
    """No address may be loaded and no script may run but these, whatever found its way into the page."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"


def _title(config: AlignConfig) -> str:
    name = "A model" if config.model == "given" else words.short_name(config.model)
    return f"{name}, aligned with {config.objective.upper()}"


def _origin(config: AlignConfig, metrics: list[dict[str, Any]]) -> str:
    source = "rows given from Python" if config.feedback == "given rows" else words.short_name(config.feedback)
    if not metrics:
        return f"Learnt from {source}."
    steps, seconds = metrics[-1]["step"], sum(m.get("seconds", 0.0) for m in metrics)
    # With log_every above 1 the metrics hold a sample of the steps.
    time = words.duration(seconds * steps / len(metrics))
    return f"Learnt from {source} in {steps:,} {'step' if steps == 1 else 'steps'}, {time} of training."


def _shown(figure: Figure) -> dict[str, Any]:
    legend = [
        {
            "name": curve.line.name,
            "colour": curve.colour,
            "stroke": "solid" if curve.colour == "a" else "dashed",
            "ends": words.change(*curve.ends),
        }
        for curve in figure.curves
    ]
    if figure.level is not None:
        value, name = figure.level
        legend.append({"name": name, "colour": "level", "stroke": "dotted", "ends": words.number(value)})
    return {"subject": figure.subject, "legend": legend}


def _sample(pair: SamplePair) -> dict[str, Any]:
    turns = [{"role": "prompt", "content": pair.prompt}] if isinstance(pair.prompt, str) else list(pair.prompt)
    rewards = (pair.base_reward, pair.aligned_reward)
    better = None
    if rewards[0] is not None and rewards[1] is not None and rewards[0] != rewards[1]:
        better = "base" if rewards[0] > rewards[1] else "aligned"
    split = max(0, len(turns) - _SHOWN_TURNS)
    return {
        "earlier": turns[:split],
        "turns": turns[split:],
        "same": pair.base.strip() == pair.aligned.strip(),
        "answers": [
            ("base", "Base", pair.base.strip(), rewards[0], better == "base"),
            ("aligned", "Aligned", pair.aligned.strip(), rewards[1], better == "aligned"),
        ],
    }


def _config_text(config: AlignConfig) -> str:
    from likewise.engine.config import write_config

    return write_config(config)


def _repeat(config: AlignConfig) -> str:
    """What must be there again for the command to work, if it is not all in run.yaml."""
    missing = {}
    if config.model == "given":
        missing["model"] = "--model"
    if config.feedback == "given rows":
        missing["rows"] = "--feedback"
    if not missing:
        return ""
    return f"Given from Python, so to be named again: the {' and the '.join(missing)} ({', '.join(missing.values())})."


def made_with(config: AlignConfig) -> dict[str, str]:
    """Versions, seed, machine and date: what a repetition depends on."""
    return {
        "Versions": ", ".join(f"{name} {number}" for name, number in words.versions().items()),
        "Seed": str(config.seed),
        "Hardware": words.hardware(),
        "Date": datetime.now().astimezone().strftime("%-d %B %Y, %H:%M %Z"),
    }
