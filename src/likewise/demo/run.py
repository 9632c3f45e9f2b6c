"""The demo: from thumbs to a verdict through the functions a user calls, in a world whose truth is known."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from likewise.data.check import check
from likewise.data.read import read_feedback
from likewise.demo.base_model import build_tokenizer, train_base_model
from likewise.demo.scores import TrueWinRate, true_win_rate
from likewise.demo.users import simulate_thumbs
from likewise.demo.world import World, build_world
from likewise.engine.files import write_text
from likewise.engine.models import load_model, load_tokenizer, without_bars
from likewise.engine.progress import Reporter
from likewise.engine.run import AlignResult, align
from likewise.errors import BadConfig
from likewise.evaluate.sample import sample
from likewise.report.run_page import SamplePair, Verdict

_MARKER = "demo.json"
_LONGEST_ANSWER = 64
_SHOWN = 12


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is, and how it trains. Each of `people` gets one answer; not all of them vote on it."""

    conversations: int = 24_000  # the base model's schooling
    people: int = 8000
    evaluation_prompts: int = 600
    up_share: float = 0.8
    flipped: float = 0.15
    epochs: float = 2.0
    batch_size: int = 32
    learning_rate: float = 3e-4


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to. The win rate is the true one: the world knows which answer people prefer."""

    output_dir: Path
    win_rate: TrueWinRate
    aligned: AlignResult
    seconds: float


def run_demo(
    output_dir: Path = Path("likewise-demo"),
    *,
    seed: int = 0,
    objective: str = "bco",
    settings: DemoSettings | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> DemoResult:
    """Make a world, a base model and its users; check, align, and judge by the hidden true preference.

    An earlier demo in `output_dir` is replaced; any other folder must be empty. `options` go to `align`.
    """
    begun, settings, reporter = time.perf_counter(), settings or DemoSettings(), reporter or Reporter()
    _make_room(output_dir)
    # A model this small gains next to nothing from a second thread, and threads that wait for one another lose
    # minutes as soon as another program wants a core.
    torch.set_num_threads(1)
    world = build_world(seed)
    base = output_dir / "base"
    reporter.title("1  a small town, and a base model that half knows it")
    _train_base(world, base, seed, settings.conversations, reporter)
    reporter.title(f"2  {settings.people:,} people get an answer each, and some of them vote")
    thumbs = _collect_thumbs(world, base, output_dir / "thumbs.jsonl", seed, settings, reporter)
    reporter.title("3  likewise check")
    report = check(read_feedback(thumbs))
    reporter.note(f"{report.verdict}: " + "; ".join(f.text for f in report.findings))
    reporter.title("4  likewise align")
    result = align(
        str(base),
        thumbs,
        objective,
        output_dir=output_dir / "aligned",
        cache_dir=output_dir / "cache",
        reporter=reporter,
        seed=seed,
        **_training(settings) | options,
    )
    reporter.title("5  would people like it more?")
    prompts = world.evaluation_prompts(settings.evaluation_prompts)
    before = _answers(load_model(str(base)), result.tokenizer, prompts, seed + 1, reporter, "base model answers")
    after = _answers(result.model, result.tokenizer, prompts, seed + 1, reporter, "aligned model answers")
    rewards = [[world.true_reward(p, a) for p, a in zip(prompts, side)] for side in (after, before)]
    win_rate = true_win_rate(*rewards)
    seconds = time.perf_counter() - begun
    verdict = judge(win_rate)
    _write(output_dir, result, verdict, win_rate, seed, seconds, _shown(prompts, before, after, rewards))
    reporter.title(verdict.headline)
    for name, value in verdict.details:
        reporter.note(f"{name}: {value}")
    reporter.note(f"{seconds:.0f} s in all; open {output_dir / 'report.html'}")
    return DemoResult(output_dir, win_rate, result, seconds)


def judge(found: TrueWinRate) -> Verdict:
    """The true win rate in words. Good only where the whole interval lies above one half."""
    rate = found.win_rate
    low, high = f"{rate.low:.1%}", f"{rate.high:.1%}"
    count = found.wins + found.ties + found.losses
    if rate.low > 0.5:
        opening, good = "People would like the aligned model more", True
    elif rate.high < 0.5:
        opening, good = "People would like the aligned model less", False
    else:
        opening, good = "People could not tell the two models apart", None
    headline = f"{opening}: it wins {rate.value:.1%} of {count:,} comparisons (95 % interval {low} to {high})"
    details = [
        ("judged by", "the hidden true preference, which training never saw"),
        ("wins, ties, losses", f"{found.wins:,}, {found.ties:,}, {found.losses:,} (a tie counts half)"),
        ("mean true reward, base", str(found.mean_b)),
        ("mean true reward, aligned", str(found.mean_a)),
        ("gain per prompt", str(found.mean_gain)),
    ]
    return Verdict(headline, details, good)


def _training(settings: DemoSettings) -> dict[str, Any]:
    return {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "max_tokens": 512,
        "max_prompt_tokens": 384,
        "holdout": 0.1,
        "report_samples": 0,
    }


def _make_room(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise BadConfig(f"{folder}: is not empty and holds no earlier demo.\nGive another --output-dir.")
        shutil.rmtree(folder)
    write_text(folder / _MARKER, "{}\n")


def _train_base(world: World, folder: Path, seed: int, conversations: int, reporter: Reporter) -> None:
    tokenizer = build_tokenizer(world, folder)
    with without_bars(), reporter.phase("a tiny Llama, trained on conversations", conversations) as advance:

        def show(step: int, steps: int, loss: float) -> None:
            advance(conversations * step // steps - conversations * (step - 1) // steps)

        train_base_model(world, tokenizer, folder, seed=seed, conversations=conversations, progress=show)


def _collect_thumbs(
    world: World, base: Path, path: Path, seed: int, settings: DemoSettings, reporter: Reporter
) -> Path:
    prompts = world.training_prompts(settings.people)
    answers = _answers(load_model(str(base)), load_tokenizer(str(base)), prompts, seed, reporter, "answers to vote on")
    # Now and then the base model says nothing at all, and nobody votes on nothing.
    said = [i for i, answer in enumerate(answers) if answer.strip()]
    prompts, answers = [prompts[i] for i in said], [answers[i] for i in said]
    rows = simulate_thumbs(
        world, prompts, answers, seed=seed, up_fraction=settings.up_share, flip=settings.flipped
    )  # fmt: skip
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    reporter.note(
        f"{len(rows):,} thumbs: {settings.up_share:.0%} up, {settings.flipped:.0%} of opinions the wrong way round, "
        "one answer a prompt, ups and downs on different prompts"
    )
    return path


def _answers(
    model: Any, tokenizer: Any, prompts: Sequence[Any], seed: int, reporter: Reporter, title: str
) -> list[str]:
    with reporter.phase(title, len(prompts)) as advance:
        return sample(
            model, tokenizer, prompts, max_new_tokens=_LONGEST_ANSWER, batch_size=200, seed=seed, progress=advance
        )  # fmt: skip


def _shown(prompts: Sequence[Any], before: list[str], after: list[str], rewards: list[list[float]]) -> list[SamplePair]:
    """The first prompts, not the best ones."""
    rows = zip(prompts, before, after, rewards[1], rewards[0])
    return [SamplePair(*row) for row in rows][:_SHOWN]


def _write(
    output_dir: Path,
    result: AlignResult,
    verdict: Verdict,
    win_rate: TrueWinRate,
    seed: int,
    seconds: float,
    samples: list[SamplePair],
) -> None:
    from dataclasses import asdict

    record = {
        "seed": seed,
        "seconds": round(seconds, 1),
        "objective": result.config.objective,
        "verdict": verdict.headline,
        **asdict(win_rate),
    }
    write_text(output_dir / _MARKER, json.dumps(record, indent=2) + "\n")
    write_text(output_dir / "report.html", result.page(verdict=verdict, samples=samples))
