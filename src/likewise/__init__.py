"""Turn the thumbs-up and thumbs-down people already give into a better language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"
__all__ = ["OBJECTIVES", "align", "read_feedback", "sample"]

if TYPE_CHECKING:
    from likewise.data import read_feedback
    from likewise.engine import align
    from likewise.evaluate import sample
    from likewise.objectives import OBJECTIVES

_HOMES = {
    "align": "likewise.engine",
    "read_feedback": "likewise.data",
    "sample": "likewise.evaluate",
    "OBJECTIVES": "likewise.objectives",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import likewise` and `likewise --help` do not wait for torch.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'likewise' has no attribute {name!r}")
