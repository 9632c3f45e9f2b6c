"""What a person watches: notes, settings with their reasons, and progress; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.table import Table

_PLAIN_EVERY_S = 5.0


@dataclass(frozen=True)
class Setting:
    """A value the run works with, and why it is so if it was derived."""

    name: str
    value: Any
    reason: str = ""


class Reporter:
    """Prints to the standard error stream, so that standard output stays free for results.

    `quiet` keeps everything but warnings to itself; workers other than the first are always quiet.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self.quiet = quiet

    @property
    def live(self) -> bool:
        return self.console.is_terminal and not self.quiet

    def title(self, text: str) -> None:
        if not self.quiet:
            self.console.print(f"[bold]{escape(text)}[/bold]")

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(f"  {escape(text)}")

    def warn(self, text: str) -> None:
        self.console.print(f"  [yellow]note:[/yellow] {escape(text)}")

    def settings(self, settings: list[Setting]) -> None:
        if self.quiet:
            return
        table = Table(box=None, padding=(0, 2), show_header=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        for setting in settings:
            table.add_row(setting.name, escape(str(setting.value)), escape(setting.reason))
        self.console.print(table)

    @contextmanager
    def phase(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A stretch of work with a known amount; call what is given with each amount done."""
        if not self.live:
            begun = time.perf_counter()
            yield lambda _: None
            self.note(f"{title}: {total:,} in {time.perf_counter() - begun:.1f} s")
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            begun = time.perf_counter()
            yield lambda amount: progress.advance(task, amount)
        self.note(f"{title}: {total:,} in {time.perf_counter() - begun:.1f} s")

    @contextmanager
    def training(self, steps: int, done: int = 0) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Training progress; call what is given with the metrics of each step."""
        if self.quiet:
            yield lambda _: None
            return
        if not self.live:
            yield _PlainSteps(self, steps)
            return
        columns = (
            TextColumn("  training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("training", total=steps, completed=done, shown="")
            yield lambda metrics: _advance(progress, task, metrics)


def _advance(progress: Progress, task: TaskID, metrics: dict[str, Any]) -> None:
    progress.update(task, completed=metrics["step"], shown=one_line(metrics))


def one_line(metrics: dict[str, Any]) -> str:
    """Loss, margin and speed of a step."""
    parts = [f"loss {metrics['loss']:.4f}"]
    if "reward/margin" in metrics:
        parts.append(f"margin {metrics['reward/margin']:+.3f}")
    parts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)


class _PlainSteps:
    """A line every few seconds, and always the first and the last."""

    def __init__(self, reporter: Reporter, steps: int) -> None:
        self.reporter, self.steps = reporter, steps
        self.begun = self.printed = time.perf_counter()
        self.first: int | None = None

    def __call__(self, metrics: dict[str, Any]) -> None:
        now, step = time.perf_counter(), int(metrics["step"])
        if self.first is None:
            self.first = step
        elif now - self.printed < _PLAIN_EVERY_S and step < self.steps:
            return
        self.printed = now
        done = step - self.first + 1
        left = (now - self.begun) / done * (self.steps - step) if done > 1 else float("nan")
        ending = f"  {left:,.0f} s left" if done > 1 and step < self.steps else ""
        self.reporter.note(f"step {step:,}/{self.steps:,}  {one_line(metrics)}{ending}")
