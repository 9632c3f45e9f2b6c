"""Writing that leaves either the old or the new, never half: to a temporary name, to the disk, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from likewise.errors import CannotSave

TEMPORARY = ".tmp-"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill; it gets its name only when everything in it is on the disk.

    Raises: CannotSave; what stood under the name before is then untouched.
    """
    temporary = target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")
    try:
        with saving(target):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _make_readable(file)
                _to_disk(file)
            _to_disk(temporary)
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            _to_disk(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Replace a file as a whole. Raises: CannotSave."""
    with saving(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            _make_readable(Path(name))
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def saving(target: Path) -> Iterator[None]:
    """Turn a failure to write into CannotSave, in the user's words."""
    try:
        yield
    except OSError as error:
        raise CannotSave(_words(target, error)) from error
    except Exception as error:  # safetensors has an error class of its own for a full disk
        if type(error).__name__ == "SafetensorError":
            raise CannotSave(_words(target, error)) from error
        raise


def clear_temporary(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    if folder.is_dir():
        for leftover in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _words(target: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return (
        f"{target}: cannot be written ({reason}). What was saved before is whole.\n"
        "Free some space or choose another --output-dir; then go on with --resume."
    )


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_readable(file: Path) -> None:
    """mkstemp and safetensors make files private; what is written here is to be read like any other file."""
    mask = os.umask(0)
    os.umask(mask)
    file.chmod(0o666 & ~mask)
