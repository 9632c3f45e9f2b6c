"""Feedback rows to JSON lines, whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from likewise.errors import BadConfig, CannotSave
from likewise.schema import Row, to_columns


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises: BadConfig where `path` is no place to write to, before any work is done."""
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise BadConfig(f"--output {path}: expected a name that ends in .jsonl or .jsonl.gz.")
    if path.exists() and not overwrite:
        raise BadConfig(f"--output {path}: exists already. Replace it with --overwrite, or give another name.")
    if not path.parent.is_dir():
        raise BadConfig(f"--output {path}: the folder {str(path.parent)!r} does not exist.")


def write_rows(rows: Iterable[Row], path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write rows as JSON lines that `read_feedback` gives back equal.

    The file appears when it is complete: it is written beside its place and renamed.
    Raises: BadConfig, CannotSave.
    """
    target = Path(path)
    refuse_existing(target, overwrite)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with _text_file(partial, zipped=target.suffix == ".gz") as file:
            for row in rows:
                file.write(json.dumps(to_columns(row), ensure_ascii=False) + "\n")
        partial.replace(target)
    except OSError as error:
        raise CannotSave(f"{path}: cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _text_file(path: Path, *, zipped: bool) -> IO[Any]:
    return gzip.open(path, "wt", encoding="utf-8") if zipped else path.open("w", encoding="utf-8")
