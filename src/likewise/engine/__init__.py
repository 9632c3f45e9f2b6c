"""The engine: layout of a step, log-probs, the reference, the one trainer, checkpoints.

`align` is imported when it is asked for, so that the configuration can be had without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["AlignResult", "align"]

if TYPE_CHECKING:
    from likewise.engine.run import AlignResult, align


def __getattr__(name: str) -> Any:
    if name in __all__:
        from likewise.engine import run

        return getattr(run, name)
    raise AttributeError(f"module 'likewise.engine' has no attribute {name!r}")
