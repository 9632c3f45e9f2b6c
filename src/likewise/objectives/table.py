"""Every objective likewise knows, by name. To add one: a function with a docstring, and a line here."""

from __future__ import annotations

from likewise.errors import UnknownObjective, nearest
from likewise.objectives.bco import BCO_MEMORY, bce, bco, describe_bce, describe_bco
from likewise.objectives.kto import KTO_MEMORY, describe_kto, kto
from likewise.objectives.objective import Objective
from likewise.objectives.pairs import describe_ipo, describe_margin, dpo, ipo, nca
from likewise.objectives.sft import describe_sft, sft

REFERENCE = frozenset({"reference"})
MISMATCHED = frozenset({"reference", "mismatched"})

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("bco", "label", bco, REFERENCE, BCO_MEMORY, describe_bco),
        Objective("bce", "label", bce, REFERENCE, description=describe_bce),
        Objective("kto", "label", kto, MISMATCHED, KTO_MEMORY, describe_kto),
        Objective("sft", "label", sft, description=describe_sft, liked_only=True),
        Objective("dpo", "pair", dpo, REFERENCE, description=describe_margin),
        Objective("ipo", "pair", ipo, REFERENCE, description=describe_ipo),
        Objective("nca", "pair", nca, REFERENCE, description=describe_margin),
    )
}


def get_objective(name: str) -> Objective:
    """The objective of that name. Raises: UnknownObjective with the nearest name and the whole list."""
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    raise UnknownObjective(
        f"no objective {name!r}{nearest(name, OBJECTIVES)}\nThere are {', '.join(OBJECTIVES)}; "
        "'likewise objectives' says what each one does."
    )
