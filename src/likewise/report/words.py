"""Names, numbers and places of a run, as a reader wants them."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def is_local(name: str) -> bool:
    """Whether a model or data set is a path on this machine and not a name on the hub."""
    return not _HUB_NAME.fullmatch(name) or Path(name).exists()


def short_name(name: str) -> str:
    """A hub name as it is; of a path, the last part."""
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or name if is_local(name) else name


def number(value: float) -> str:
    """Three significant digits or whole thousands; a true minus sign."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "undefined"
    size = abs(value)
    if size and not 1e-3 <= size < 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{max(0, 3 - math.floor(math.log10(size)) - 1) if size else 0}f}"
    return text.replace("-", "−")


def change(first: float, last: float) -> str:
    """Where a curve started and ended, both to the same decimals."""
    size = max(abs(first), abs(last))
    if math.isfinite(size) and 1e-3 <= size < 1000:
        decimals = 2 - math.floor(math.log10(size))
        first_text, last_text = (f"{value:.{decimals}f}" if value else "0" for value in (first, last))
        return f"{first_text} → {last_text}".replace("-", "−")
    return f"{number(first)} → {number(last)}"


def plain(value: Any) -> str:
    """A fact or a setting as it could be typed, but for thousands separators; of a whole path, the last part."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return re.sub(r"e([+-])0*", lambda e: "e" + e[1].replace("+", ""), f"{value:g}")
    text = str(value)
    return short_name(text) if os.path.isabs(text) else text


def duration(seconds: float) -> str:
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def showable(text: str) -> str:
    """Text that any page can hold: control characters and lone surrogates replaced, line ends made one kind."""
    return _UNSHOWABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def versions() -> dict[str, str]:
    """likewise and what its results depend on most."""
    import likewise

    found = {"likewise": likewise.__version__, "Python": platform.python_version()}
    for package in ("torch", "transformers", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """The accelerator if torch is loaded and sees one, and the processor with the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpu = f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = torch.cuda.device_count()
        return f"{f'{count} × ' if count > 1 else ''}{torch.cuda.get_device_name(0)}; {cpu}"
    return cpu


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (named[0] if named else "") or platform.processor() or platform.machine() or "unknown processor"
