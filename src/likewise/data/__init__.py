"""Feedback: reading it, turning one kind into another, judging whether it is fit to learn from."""

from likewise.data.read import read_feedback
from likewise.schema import Answer, Feedback, LabelRow, PairRow, RatingRow, SkippedRow

__all__ = ["Answer", "Feedback", "LabelRow", "PairRow", "RatingRow", "SkippedRow", "read_feedback"]
