"""What a child process does: its runs, one after another. `SPEC` is given by processes.py."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any


def slow_saving(seconds: float, name: str) -> None:
    """Writing files takes a while, as on a real disk, so that a kill can fall into it: half of `name` stands there."""
    import likewise.engine.checkpoint as checkpoint

    save = checkpoint.save_file

    def slowly(tensors: Any, path: Path, *rest: Any) -> None:
        save(tensors, path, *rest)
        if Path(path).name == name:
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])
            time.sleep(seconds)
            Path(path).write_bytes(whole)

    checkpoint.save_file = slowly


def slow_naming(seconds: float) -> None:
    """All files of a checkpoint are there, but it has not got its name yet."""
    import likewise.engine.files as files

    to_disk = files._to_disk

    def slowly(path: Path) -> None:
        time.sleep(seconds)
        to_disk(path)

    files._to_disk = slowly


def slow_moving(seconds: float) -> None:
    """The finished model goes to its place file by file."""
    import likewise.engine.output as output

    class SlowOs:
        @staticmethod
        def replace(source: Path, target: Path) -> None:
            os.replace(source, target)
            time.sleep(seconds)

    output.os = SlowOs


def disk_full(limit: int, after: int) -> None:
    """From the time when so many checkpoints stand, no file may grow beyond the limit: EFBIG in the place of ENOSPC."""
    import resource
    import signal

    from likewise.engine.checkpoint import Checkpoints

    save = Checkpoints.save
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limited(self: Any, step: int, *rest: Any) -> Path:
        if step > after:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            return save(self, step, *rest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    Checkpoints.save = limited


def slow_steps(seconds: float) -> None:
    from likewise.engine.trainer import Trainer

    step = Trainer._one_step

    def slowly(self: Any, number: int) -> Any:
        time.sleep(seconds)
        return step(self, number)

    Trainer._one_step = slowly


def forget_after(folder: Path, step: int) -> None:
    """Put a finished run's folder back to where it stood after a step, as if it had been killed there."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("metrics.jsonl", "run.yaml"):
            path.unlink()


def main(spec: dict[str, Any]) -> None:
    os.environ.update(spec.get("env", {}))
    if folders := spec.get("cache_of_worker"):
        os.environ["LIKEWISE_CACHE"] = folders[int(os.environ["RANK"])]
    log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    torch.set_num_threads(1)
    from likewise.engine import align
    from likewise.engine.workers import leave_workers
    from likewise.errors import LikewiseError

    if "slow_saving" in spec:
        slow_saving(*spec["slow_saving"])
    for name, make_slow in (("slow_naming", slow_naming), ("slow_moving", slow_moving)):
        if name in spec:
            make_slow(spec[name])
    if "disk_full" in spec:
        disk_full(*spec["disk_full"])
    if "slow_steps" in spec:
        slow_steps(spec["slow_steps"])
    for run in spec["runs"]:
        after = run.pop("killed_after", None)
        if after is not None and os.environ.get("RANK", "0") == "0":
            forget_after(Path(run["output_dir"]), after)
        if after is not None and "RANK" in os.environ:
            torch.distributed.barrier()
        try:
            align(run.pop("model"), run.pop("feedback"), run.pop("objective", "bco"), **run)
        except LikewiseError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(2)
    leave_workers()


main(json.loads(SPEC))  # type: ignore[name-defined] # noqa: F821
