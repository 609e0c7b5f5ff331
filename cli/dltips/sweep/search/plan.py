"""Defines a search as plain data, the same for every worker of the study."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dltips.config.overrides import typed_keys
from dltips.sweep.search.search_settings import MAY_DIFFER, SearchSettings, direction
from dltips.sweep.search.space import Space


@dataclass(frozen=True)
class SearchPlan:
    """A frozen search."""

    space: Space
    settings: SearchSettings
    objectives: tuple[str, ...]
    fixed: tuple[str, ...]  # the overrides that all trials share, as they were typed
    study: str  # its name in the database
    code: str = ""  # the hash of the code that it was made with; "": any
    data: str = ""  # the hash of its data and of its runs' initial weights; "": any

    @property
    def directions(self) -> list[str]:
        return [direction(objective) for objective in self.objectives]

    @property
    def metric(self) -> str:
        return str(self.space.base["metric"])

    @property
    def typed(self) -> list[str]:
        """Returns the keys that were set on the command line."""
        return [*typed_keys(list(self.fixed)), *(dimension.key for dimension in self.space.dimensions)]

    def to_json(self) -> dict[str, Any]:
        kept = {key: value for key, value in asdict(self.settings).items() if key not in MAY_DIFFER}
        return {
            "space": self.space.to_json(),
            "settings": kept,
            "objectives": list(self.objectives),
            "fixed": list(self.fixed),
            "study": self.study,
            "code": self.code,
            "data": self.data,
        }
