"""Options of an objective: the keyword-only arguments of its loss, their defaults, meaning and checks.

The signature is the one place where an option is declared; its annotation says which values can work.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from likewise.errors import BadConfig, nearest

if TYPE_CHECKING:
    from likewise.objectives.objective import Objective


@dataclass(frozen=True)
class Range:
    """Numbers that can work: `above` is exclusive, `at_least` and `at_most` are not."""

    above: float = -math.inf
    at_least: float = -math.inf
    at_most: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.above < value and self.at_least <= value <= self.at_most

    def __str__(self) -> str:
        parts = [
            f"above {self.above:g}" if self.above > -math.inf else "",
            f"of at least {self.at_least:g}" if self.at_least > -math.inf else "",
            f"at most {self.at_most:g}" if self.at_most < math.inf else "",
        ]
        return " and ".join(part for part in parts if part)


Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Rate = Annotated[float, Range(above=0, at_most=1)]
Average = Literal["sum", "token_mean"]


@dataclass(frozen=True)
class Option:
    """One option as its signature declares it."""

    name: str
    default: Any
    type: Any

    @property
    def accepts(self) -> str:
        """The values that can work, in words."""
        if get_origin(self.type) is Literal:
            return " or ".join(str(choice) for choice in get_args(self.type))
        if self.type is bool:
            return "true or false"
        return f"a number {self._range}".rstrip()

    @property
    def _range(self) -> Range:
        found = [extra for extra in get_args(self.type)[1:] if isinstance(extra, Range)]
        return found[0] if found else Range()

    def check(self, value: Any) -> Any:
        """The value in its own type, or ValueError."""
        if get_origin(self.type) is Literal:
            if value in get_args(self.type):
                return value
        elif self.type is bool:
            if isinstance(value, bool):
                return value
        elif not isinstance(value, bool) and isinstance(value, int | float | str):
            # Text too: YAML reads 1e-3 as text, and so does a command line.
            number = float(value)
            if math.isfinite(number) and number in self._range:
                return number
        raise ValueError(f"expected {self.accepts}")


@cache
def declared_options(function: Callable[..., Any]) -> tuple[Option, ...]:
    """The options a loss function declares, in the order of its signature."""
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return tuple(Option(p.name, p.default, hints[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY)


def check_options(objective: Objective, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the objective: those given, checked, and the defaults of the others.

    Raises: BadConfig for an option that the objective does not have or a value that cannot work.
    """
    declared = {option.name: option for option in declared_options(objective.function)}
    for name in options:
        if name not in declared:
            have = ", ".join(f"{option.name} ({option.default})" for option in declared.values()) or "none"
            raise BadConfig(
                f"objective {objective.name!r} has no option {name!r}{nearest(name, declared)}\nIts options: {have}."
            )
    checked = {}
    for name, option in declared.items():
        value = options.get(name, option.default)
        try:
            checked[name] = option.check(value)
        except ValueError:
            raise BadConfig(
                f"option {name!r} of objective {objective.name!r} is {value!r}; expected {option.accepts}.\n"
                f"The default is {option.default}."
            ) from None
    return checked
