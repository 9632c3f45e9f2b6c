"""`likewise demo`: the whole path without a network, a GPU or data of one's own."""

from __future__ import annotations

from pathlib import Path


def demo(*, output_dir: Path = Path("likewise-demo"), seed: int = 0, objective: str = "bco") -> None:
    """See the whole path on made-up people: thumbs, check, align, verdict, report.

    Makes a small world with a hidden true preference, a tiny base model, and people who vote on its answers (noisy,
    80 % thumbs up, one answer a prompt). Aligns the model and asks the hidden preference which one is better.

    Parameters
    ----------
    output_dir
        Where everything goes; an earlier demo there is replaced.
    seed
        Another seed is another town, other people and another base model.
    objective
        What to align with; see `likewise objectives`.
    """
    from likewise.demo.run import run_demo

    run_demo(output_dir, seed=seed, objective=objective)
