"""Checkpoints: everything that a resumed run needs to end with the very weights of an undisturbed one.

`checkpoints/step-N/` holds trainable weights, optimizer moments, objective state and random state as safetensors, and
`run.json` with the position and what the run must still be (model, data, objective, settings). No pickle. A folder gets
its name only when it is whole, so the newest name is always usable.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from likewise.engine.files import atomic_folder, clear_temporary
from likewise.errors import BadCheckpoint

_SEPARATOR = "::"


class Checkpoints:
    """The checkpoints of one output folder."""

    def __init__(self, output_dir: Path, *, keep: int) -> None:
        self.folder, self.keep = output_dir / "checkpoints", keep

    def newest(self) -> Path | None:
        """The newest complete checkpoint, or None."""
        found = [(int(p.name.removeprefix("step-")), p) for p in self.folder.glob("step-*") if p.name[5:].isdigit()]
        return max(found)[1] if found else None

    def clear_temporary(self) -> None:
        clear_temporary(self.folder)

    def save(self, step: int, tensors: TrainingTensors, identity: dict[str, Any]) -> Path:
        """Write step-N, then drop the oldest beyond `keep`. Raises: CannotSave; older ones stay whole."""
        target = self.folder / f"step-{step}"
        with atomic_folder(target) as folder:
            save_file(tensors.model, folder / "model.safetensors")
            save_file(tensors.optimizer, folder / "optimizer.safetensors")
            save_file(tensors.state, folder / "state.safetensors")
            (folder / "run.json").write_text(json.dumps({"step": step, **identity}, indent=2), encoding="utf-8")
        numbers = sorted(int(p.name[5:]) for p in self.folder.glob("step-*") if p.name[5:].isdigit())
        for old in numbers[: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old}", ignore_errors=True)
        return target

    def check(self, identity: dict[str, Any]) -> None:
        """Raises: BadCheckpoint when the newest checkpoint is broken or of another run."""
        newest = self.newest()
        if newest is None:
            return
        with _reading(newest):
            run = json.loads((newest / "run.json").read_text(encoding="utf-8"))
            int(run.pop("step"))
        lines = [f"  {name}: was {_short(was)}, is {_short(now)}" for name, was, now in _changes(run, identity)]
        if lines:
            raise BadCheckpoint(
                f"{newest}: is of another run, so it cannot be resumed:\n" + "\n".join(lines) + "\n"
                "Give back what it was, or start anew in another --output-dir."
            )

    def load(self, path: Path) -> tuple[int, TrainingTensors]:
        """The step and tensors of a checkpoint. Raises: BadCheckpoint."""
        with _reading(path):
            step = int(json.loads((path / "run.json").read_text(encoding="utf-8"))["step"])
            files = [load_file(path / f"{name}.safetensors") for name in ("model", "optimizer", "state")]
        return step, TrainingTensors(*files)


class TrainingTensors:
    """Trainable weights, optimizer moments, and objective and random state, as flat dicts of tensors."""

    def __init__(self, model: dict[str, Tensor], optimizer: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        self.model, self.optimizer, self.state = model, optimizer, state

    @classmethod
    def of(
        cls, model: nn.Module, optimizer: torch.optim.Optimizer, objective_state: dict[str, Tensor], *, sharded: bool
    ) -> TrainingTensors:
        """Gathered to whole tensors; every worker must call this, the first one gets the result."""
        dicts = _state_dicts()
        options = dicts.StateDictOptions(full_state_dict=sharded, cpu_offload=sharded, ignore_frozen_params=True)
        weights = dicts.get_model_state_dict(model, options=options)
        # Gathered, both are empty but on the first worker.
        moments = dicts.get_optimizer_state_dict(model, optimizer, options=options).get("state", {})
        flat = {f"{name}{_SEPARATOR}{key}": value for name, part in moments.items() for key, value in part.items()}
        state = {f"objective{_SEPARATOR}{name}": value.cpu() for name, value in objective_state.items()}
        state[f"random{_SEPARATOR}cpu"] = torch.get_rng_state()
        return cls(_separate(weights), _separate(flat), state)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, sharded: bool) -> dict[str, Tensor]:
        """Put weights, moments and random state back; returns the objective's state."""
        dicts = _state_dicts()
        options = dicts.StateDictOptions(
            full_state_dict=sharded, cpu_offload=sharded, ignore_frozen_params=True, strict=False
        )
        dicts.set_model_state_dict(model, dict(self.model), options=options)
        moments: dict[str, Any] = {}
        for key, value in self.optimizer.items():
            name, part = key.rsplit(_SEPARATOR, 1)
            moments.setdefault(name, {})[part] = value
        # Not gathered: a gathered one is empty on every worker but the first, and only the groups are read here.
        trained = dicts.StateDictOptions(ignore_frozen_params=True)
        groups = dicts.get_optimizer_state_dict(model, optimizer, options=trained)["param_groups"]
        whole = {"state": moments, "param_groups": groups}
        dicts.set_optimizer_state_dict(model, optimizer, whole, options=options)
        torch.set_rng_state(self.state[f"random{_SEPARATOR}cpu"])
        prefix = f"objective{_SEPARATOR}"
        return {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}


def _state_dicts() -> Any:
    """torch's state dicts, of sharded and whole models alike; imported late: 50 MB that some runs never need."""
    from torch.distributed.checkpoint import state_dict

    return state_dict


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights once: safetensors refuses two names for one memory, and loading ties them again."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        result[name] = tensor.detach().contiguous()
    return result


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BadCheckpoint(
            f"{path}: cannot be read ({(str(error).splitlines() or [''])[0]}).\nRemove that folder; --resume then goes "
            "on from the one before it."
        ) from error


def _changes(was: Any, now: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, before, now) of everything that differs, down to single settings."""
    was = was if isinstance(was, dict) else {}
    for key in {**was, **now} if within else now:
        before, after = was.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _changes(before, after, f"{within}{key} ")
        elif before != after:
            yield f"{within}{key}", before, after


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
