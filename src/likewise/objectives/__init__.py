"""Objectives: pure functions from summed log-probs to one loss a row, and the table that names them."""

from likewise.objectives.batches import Batch, GroupLogps, LabelLogps, PairLogps, concat
from likewise.objectives.objective import Memory, Objective, State, Sums, add_sums
from likewise.objectives.options import check_options
from likewise.objectives.table import OBJECTIVES, get_objective

__all__ = [
    "OBJECTIVES",
    "Batch",
    "GroupLogps",
    "LabelLogps",
    "Memory",
    "Objective",
    "PairLogps",
    "State",
    "Sums",
    "add_sums",
    "check_options",
    "concat",
    "get_objective",
]
