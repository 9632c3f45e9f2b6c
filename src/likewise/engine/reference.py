"""The reference: the frozen model the policy is measured against. Three ways to its log-probs, the same numbers.

cached    every sequence of the run is scored once before training, and kept on disk for later runs
adapter   the model with its adapter switched off, beside every policy pass
live      a second copy of the model, beside every policy pass
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from likewise.engine.files import TEMPORARY
from likewise.engine.sequences import Sequences


def default_cache_dir() -> Path:
    """$LIKEWISE_CACHE, or ~/.cache/likewise (following $XDG_CACHE_HOME)."""
    if own := os.environ.get("LIKEWISE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "likewise"


class ReferenceCache:
    """Reference log-probs on disk, one file per (weights, precision, tokens).

    The key holds a hash of the model's weights and of every token in order, so a cache of another model, tokenizer,
    template, limit or file is never met; a broken one is found out and made again. NaN stands for what no run scored.
    """

    def __init__(self, folder: Path, model_fingerprint: str, dtype: str, sequences: Sequences) -> None:
        self.key = f"{model_fingerprint}-{dtype}-{sequences.digest()}"
        self.path = folder / "reference" / f"{self.key}.safetensors"
        self.count = len(sequences)

    def read(self) -> tuple[np.ndarray, str | None]:
        """(log-probs [sequences] float32, why a file that is there is not used); NaN where none is known."""
        unknown = np.full(self.count, np.nan, dtype=np.float32)
        if not self.path.exists():
            return unknown, None
        try:
            with safe_open(self.path, framework="pt") as file:
                key = (file.metadata() or {}).get("key")
                logps = file.get_tensor("logps").numpy()
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            return unknown, f"{self.path} is broken ({str(error).splitlines()[0]}); it is made again"
        if key != self.key or logps.shape != (self.count,):
            return unknown, f"{self.path} does not hold what its name says; it is made again"
        return logps, None

    def write(self, logps: np.ndarray) -> str | None:
        """Keep them for later runs; a cache that cannot be written is no reason to stop. Returns why not, if so."""
        temporary = self.path.with_name(f"{TEMPORARY}{os.getpid()}-{self.path.name}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"logps": torch.from_numpy(np.ascontiguousarray(logps))}, temporary, metadata={"key": self.key})
            os.replace(temporary, self.path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return f"the reference log-probs could not be kept in {self.path.parent} ({error})"
        return None


class CachedReference:
    """Log-probs looked up by the number of the sequence."""

    def __init__(self, logps: np.ndarray) -> None:
        self.logps = torch.from_numpy(logps)

    def __call__(self, sequences: np.ndarray, _: Any) -> torch.Tensor:
        return self.logps[torch.from_numpy(sequences)]


class LiveReference:
    """Log-probs computed beside the policy's, by a second model or by the policy with its adapter off."""

    def __init__(self, model: torch.nn.Module, adapter_off: Callable[[], AbstractContextManager[None]] | None) -> None:
        self.model, self.adapter_off = model, adapter_off or nullcontext

    def __call__(self, sequences: np.ndarray, batch: Any) -> torch.Tensor:
        with torch.no_grad(), self.adapter_off():
            return self.model(batch).detach()
