"""One thread for every test here, so that runs can be compared bit by bit; helpers importable by name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Run:
    """A finished run: its folder, its metrics, its weights, and what it printed."""

    def __init__(self, result: Any, printed: str) -> None:
        self.result, self.printed = result, printed
        self.folder: Path = result.output_dir
        self.metrics: list[dict[str, Any]] = result.metrics

    @property
    def losses(self) -> list[float]:
        return [m["loss"] for m in self.metrics]

    @property
    def weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        name = "adapter_model" if (self.folder / "adapter_model.safetensors").exists() else "model"
        return load_file(self.folder / f"{name}.safetensors")


@pytest.fixture
def align(tiny_model: Path, tmp_path: Path) -> Callable[..., Run]:
    """Runs `likewise.align` on the tiny model with a small, quick configuration; keywords change it."""
    import io

    from rich.console import Console

    import likewise
    from likewise.engine.progress import Reporter

    count = iter(range(1000))

    def run(feedback: Any, objective: str = "bco", *, model: Any = tiny_model, **config: Any) -> Run:
        out = config.pop("output_dir", None) or tmp_path / f"out-{next(count)}"
        settings: dict[str, Any] = {
            "batch_size": 8,
            "learning_rate": 1e-3,
            "report_samples": 0,
            "checkpoint_every": 0,
            **config,
        }
        stream = io.StringIO()
        reporter = Reporter(console=Console(file=stream, width=200, soft_wrap=True))
        result = likewise.align(model, feedback, objective, output_dir=out, reporter=reporter, **settings)
        return Run(result, stream.getvalue())

    return run
