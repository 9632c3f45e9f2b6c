"""What the curves of a run mean, in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from likewise.engine.heldout import HeldOut
from likewise.objectives.objective import Objective

Mark = Literal["✓", "!", "·"]


@dataclass(frozen=True)
class Finding:
    """One sentence. "✓" is as it should be, "!" wants attention, "·" is a fact."""

    mark: Mark
    text: str


@dataclass(frozen=True)
class Summary:
    """The findings of a run, most important first."""

    findings: list[Finding]

    def __str__(self) -> str:
        return "\n".join(f"{f.mark} {f.text}" for f in self.findings)

    def to_dict(self, heldout: HeldOut | None) -> dict[str, Any]:
        return {
            "findings": [asdict(f) for f in self.findings],
            "heldout": heldout.to_dict() if heldout is not None else None,
        }


def summarise(metrics: list[dict[str, Any]], objective: Objective, heldout: HeldOut | None, seconds: float) -> Summary:
    """Read the curves: first fifth of the steps against the last, with the noise between steps as the yardstick."""
    findings: list[Finding] = []
    if len(metrics) < 5:
        findings.append(Finding("!", f"{len(metrics)} steps are too few to read a curve from"))
    else:
        findings += [f for f in (_learning(metrics), _liked(metrics), _shift(metrics), _baseline(metrics)) if f]
    if heldout is not None:
        findings.append(_held_out(heldout))
    if metrics:
        examples = sum(m["examples"] for m in metrics)
        findings.append(
            Finding(
                "·",
                f"{examples:,} examples in {metrics[-1]['step']:,} steps, {seconds:,.0f} s in all, at most "
                f"{metrics[-1]['peak_memory_bytes'] / 2**30:.2f} GiB of memory",
            )
        )
    return Summary(findings)


def _ends(metrics: list[dict[str, Any]], key: str) -> tuple[float, float, float] | None:
    """(mean of the first fifth, mean of the last fifth, standard error of their difference)."""
    values = np.array([m[key] for m in metrics if key in m], dtype=float)
    if len(values) < 5:
        return None
    fifth = max(2, len(values) // 5)
    first, last = values[:fifth], values[-fifth:]
    error = float(np.sqrt(first.var(ddof=1) / fifth + last.var(ddof=1) / fifth))
    return float(first.mean()), float(last.mean()), error


def _learning(metrics: list[dict[str, Any]]) -> Finding | None:
    margin = _ends(metrics, "reward/margin")
    if margin is None:
        loss = _ends(metrics, "loss")
        assert loss is not None
        first, last, error = loss
        if last < first - 2 * error:
            return Finding("✓", f"it is learning: the loss fell from {first:.3f} to {last:.3f}")
        return Finding("!", f"no learning to be seen: the loss went from {first:.3f} to {last:.3f}")
    first, last, error = margin
    change = f"the reward margin went from {first:+.3f} to {last:+.3f}"
    if last > first + 2 * error and last > 0.02:
        return Finding("✓", f"it is learning: {change}")
    if last < first - 2 * error:
        return Finding("!", f"it is unlearning: {change}; lower the learning rate and look at the labels")
    small = max(abs(first), abs(last)) < 0.02
    mend = "a higher learning rate or more epochs" if small else "more data, or labels with less noise"
    return Finding("!", f"hardly any learning to be seen: {change} (noise {error:.3f}); try {mend}")


def _liked(metrics: list[dict[str, Any]]) -> Finding | None:
    for key, name in (("reward/desirable", "liked"), ("reward/chosen", "chosen")):
        ends = _ends(metrics, key)
        if ends is not None:
            _, last, _ = ends
            if last < -0.05:
                return Finding(
                    "!",
                    f"{name} answers became less likely than under the reference (reward {last:+.3f}): the model is "
                    "moving away from both sides; a smaller learning rate or a larger beta holds it closer",
                )
            direction = "more likely than" if last > 0.02 else "about as likely as"
            return Finding("✓", f"{name} answers are {direction} under the reference (reward {last:+.3f})")
    return None


def _shift(metrics: list[dict[str, Any]]) -> Finding | None:
    values = np.array([m["objective/shift"] for m in metrics if "objective/shift" in m], dtype=float)
    if len(values) < 5 or np.ptp(values) == 0:
        return None
    tail = values[-max(2, len(values) // 5) :]
    moved, whole = float(abs(tail[-1] - tail[0])), float(np.ptp(values))
    if moved <= max(0.15 * whole, 0.02):
        return Finding("✓", f"the reward shift settled at {values[-1]:+.3f}")
    return Finding("!", f"the reward shift is still moving ({tail[0]:+.3f} to {tail[-1]:+.3f}); more steps may help")


def _baseline(metrics: list[dict[str, Any]]) -> Finding | None:
    values = [m["objective/baseline_raw"] for m in metrics if "objective/baseline_raw" in m]
    if not values:
        return None
    clamped = sum(v < 0 for v in values) / len(values)
    text = f"the KTO baseline ended at {values[-1]:+.3f} nats; the clamp set it to 0 in {clamped:.0%} of the steps"
    return Finding("!" if clamped > 0.5 else "·", text + ("; KTO then behaves like BCE" if clamped > 0.5 else ""))


def _held_out(heldout: HeldOut) -> Finding:
    estimate = heldout.estimate
    if estimate is None:
        return Finding("·", heldout.note)
    if estimate.low > 0.5:
        return Finding("✓", f"{heldout}: better than chance on feedback it has not seen")
    if estimate.high < 0.5:
        return Finding("!", f"{heldout}: worse than chance on feedback it has not seen; look at the labels")
    return Finding("!", f"{heldout}: not told from chance on feedback it has not seen")
