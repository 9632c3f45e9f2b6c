"""Measuring: samples, and how well implicit rewards agree with held-out feedback."""

from likewise.evaluate.heldout import Estimate, auc, proportion
from likewise.evaluate.sample import sample

__all__ = ["Estimate", "auc", "proportion", "sample"]
