"""Large tensors given back to the system as soon as they are freed."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # malloc.h
_LARGE = 2**20


def give_back_large_blocks() -> None:
    """Keep glibc from hoarding freed blocks of a megabyte and more.

    Its limit for blocks that are returned at once grows with the largest block ever freed. Training frees blocks of a
    hundred megabytes at every step (logits, gradients), after which everything smaller lies on a heap with holes that
    no other block fits: at 30 million parameters that is a fifth of the peak. A fixed limit costs a few per cent of
    time in page faults. Does nothing where the C library is another.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)
