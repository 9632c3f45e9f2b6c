"""Runs of likewise in processes of their own: several workers at once, or one that is to be killed.

Children are forked from a server that has imported torch and likewise already, so each costs a tenth of a second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHILD = Path(__file__).with_name("child.py")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["likewise.engine.run", "likewise.report.card", "peft", "transformers.models.llama.modeling_llama", "accelerate"]
)
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}


class Child:
    """One process that does some runs after one another, and the file it prints to."""

    def __init__(self, log: Path, runs: list[dict[str, Any]], **spec: Any) -> None:
        self.log = log
        spec |= {"runs": runs, "log": str(log)}
        self.process = _CONTEXT.Process(
            target=runpy.run_path, args=(str(_CHILD),), kwargs={"init_globals": {"SPEC": json.dumps(spec)}}
        )
        self.process.start()

    def wait(self, timeout: float = 120) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"did not end in {timeout} s:\n{self.printed}")
        return self.process.exitcode

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def kill_when(self, condition: Callable[[], bool], timeout: float = 60) -> bool:
        """SIGKILL as soon as the condition holds; False if the process ended before that."""
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            if condition():
                alive = self.process.is_alive()
                self.kill() if alive else None
                return alive
            if not self.process.is_alive():
                return False
            time.sleep(0.002)
        self.kill()
        raise AssertionError(f"never came to the point of the kill:\n{self.printed}")

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_workers(
    folder: Path, runs: list[dict[str, Any]], *, workers: int, env: dict[str, str] | None = None, **spec: Any
) -> None:
    """The same runs on several workers joined as `torchrun` or `accelerate launch` would join them."""
    port = free_port()
    children = [
        Child(
            folder / f"worker-{rank}.log",
            runs,
            env={
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(workers),
                "LOCAL_WORLD_SIZE": str(workers),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                **(env or {}),
            },
            **spec,
        )
        for rank in range(workers)
    ]
    codes = [child.wait() for child in children]
    assert codes == [0] * workers, f"exit codes {codes}\n" + "\n".join(child.printed for child in children)


def metrics_of(folder: str | Path) -> list[dict[str, Any]]:
    lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
