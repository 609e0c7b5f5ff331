"""The four articles that dltips started from, and the record of one of their tips or claims."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

# The letters by which cards cite the articles
SOURCES = {
    "K": "Must Know Tips for Deep Learning Neural Networks",
    "S": "a study note on Must Know Tips",
    "B": "The Black Magic of Deep Learning (2017)",
    "T": "Tips and Tricks for Deep Learning (2020)",
}


@dataclass(frozen=True)
class ArticleTip:
    """One tip or claim. `overrides` select a run that has it, or the grid that compares; empty where a verb answers."""

    id: str
    letters: str  # of SOURCES: "ST"
    switch: str
    says: str
    overrides: tuple[str, ...]
    later: bool = False  # no switch exists yet

    @property
    def state(self) -> str:
        return "not yet" if self.later else "available"

    @property
    def command(self) -> str:
        """Returns the command to type; "" if there is none yet."""
        if self.later:
            return ""
        if not self.overrides:
            return self.switch if self.switch.startswith("dltips") else ""
        grid = "-m " if any(SEVERAL.match(override) for override in self.overrides) else ""
        return f"dltips train {grid}+recipe=quickstart {shlex.join(self.overrides)}"


# a=1,2 and a=[1],[2] and a=range(3), but not a=[1,2]
SEVERAL = re.compile(r"[^=]+=(?:range\(.*|(?:\[[^\]]*\]|[^,\[\]]*),.*)$")


def cited(text: str) -> dict[str, str]:
    """Returns the articles whose letters a card's source names: `tips K, S and T; He et al. 2015`."""
    letters = {letter for part in re.findall(r"\btips? ([A-Z](?:(?:, | and )[A-Z]\b)*)", text) for letter in part}
    return {letter: title for letter, title in SOURCES.items() if letter in letters}


def tip(name: str, source: str, switch: str, says: str, *overrides: str, later: bool = False) -> ArticleTip:
    """A tip: its switch is its run, unless overrides give more: a model that has the knob, a value to compare with."""
    verb = switch.startswith("dltips") or later
    return ArticleTip(name, source, switch, says, overrides or (() if verb else (switch,)), later)


def claim(name: str, source: str, says: str, *overrides: str, later: bool = False) -> ArticleTip:
    """A claim: its switch is the comparison that would settle it."""
    return ArticleTip(name, source, shlex.join(overrides), says, overrides, later)
