"""Errors a user can mend: each says what was wrong, where, and how to put it right.

The library raises them; the command line prints them without a traceback and ends with exit code 2.
Anything else that escapes is a defect of likewise and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LikewiseError(Exception):
    """Something the user can mend. `str(error)` is the whole message."""


class BadRow(LikewiseError):
    """A feedback row that cannot be used: `source` row `row`, field `field`, and why."""

    def __init__(self, source: str, row: int, field: str | None, problem: str, mend: str = "") -> None:
        self.source, self.row, self.field, self.problem, self.mend = source, row, field, problem, mend
        where = f"{source} row {row}: " + (f"'{field}' " if field else "")
        super().__init__(where + problem + ("\n" + mend if mend else ""))


class BadFeedback(LikewiseError):
    """A feedback file, or a set of rows as a whole, that cannot be read or learnt from."""


class BadConfig(LikewiseError):
    """An option with a value that cannot work, alone or together with the others."""


class UnknownObjective(BadConfig):
    """A name that stands in no table of objectives."""


class BadModel(LikewiseError):
    """A model, tokenizer or chat template that cannot be loaded or used."""


class BadCheckpoint(LikewiseError):
    """A checkpoint that is missing, broken, or of another run."""


class CannotSave(LikewiseError):
    """Writing failed (disk full, no permission); what was saved before is whole."""


class TrainingDiverged(LikewiseError):
    """A loss or gradient that is not finite, or a first step that contradicts the maths."""


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the closest known name, or '' when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
