"""One self-contained HTML page about a run."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from likewise.schema import Content

if TYPE_CHECKING:
    from likewise.engine.config import AlignConfig
    from likewise.engine.heldout import HeldOut
    from likewise.engine.progress import Setting
    from likewise.engine.summary import Summary


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
    """What the run came to, in one sentence, with the figures behind it as (name, value)."""

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
    """The page as one string of HTML."""
    findings = "".join(f"<li>{escape(f.mark)} {escape(f.text)}</li>" for f in summary.findings)
    return f"<!doctype html><meta charset=utf-8><title>{escape(config.objective)}</title><ul>{findings}</ul>"
