"""Checks overrides and recipes against the options and knobs that exist, before anything is composed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import Override

from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.config.option_files import common_knobs, contains, dotted, knobs, options, primary_knobs
from dltips.config.overrides import is_hydras, values
from dltips.config.recipes import GROUP, Choice
from dltips.errors import ConfigError, suggest

# Keys of other tools, and their names here.
ELSEWHERE = {
    "drop_last": "nothing is dropped: the last, smaller batch is trained on, and a single sample joins its neighbour",
    "weight_decay": "write regularization=weight_decay",
    "num_workers": "data live on the device; what does not fit is streamed, see data.placement",
}


def check_form(override: Override) -> None:
    """Raises ConfigError for a package, a deletion, or an unknown option. Skips Hydra's own keys.

    Needs no other override, so that a grid is checked before its trials are laid out.
    """
    line, key = str(override.input_line), override.key_or_group
    if is_hydras(key):
        return
    if override.package is not None:
        raise ConfigError(f"{line}: a package cannot be set here; write {key}={'NAME' if key == GROUP else 'OPTION'}")
    if key == GROUP:
        return  # recipe=, +recipe= and ++recipe= all mean the same
    if override.is_delete():
        raise ConfigError(f"{line}: nothing can be left out; set it to another value")
    if key in FAMILIES:
        for value in values(override):
            check_choice(key, key, value)
        if override.is_add() or override.is_force_add():
            raise ConfigError(f"{line}: {key} is chosen already; write {line.lstrip('+')} without the plus")


def check_choice(where: str, family: str, choice: Any) -> None:
    """Raises ConfigError if the family has no such option, or gets a list where it takes one option."""
    known = options(family)
    if isinstance(choice, list) and family not in STACKABLE:
        remedy = f"write {family}={choice[0]}" if len(choice) == 1 else f"choose one of {', '.join(map(str, choice))}"
        raise ConfigError(f"{where}: takes one option, not a list; {remedy}")
    names = choice if isinstance(choice, list) else [choice]
    if not names:
        raise ConfigError(f"{where}: an empty list chooses nothing; write {family}=none")
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{where}: {name!r} is not an option; it takes the name of one{suggest('', known)}")
        if name not in known:
            raise ConfigError(f"{where}: {name!r} is not an option{suggest(name, known)}")
        if names.count(name) > 1:
            raise ConfigError(f"{where}: {name} is given twice; once is enough")
    if "none" in names and len(names) > 1:
        rest = ",".join(name for name in names if name != "none")
        raise ConfigError(f"{where}: none beside others means nothing; write '{family}=[{rest}]'")


def check_value(override: Override, final: Mapping[str, Choice]) -> None:
    """Raises ConfigError for a key that is neither in config.yaml nor in a chosen option."""
    line, key = str(override.input_line), override.key_or_group
    _check_key(key, final)
    if override.is_add():
        raise ConfigError(f"{line}: {key} is set already; write {line.lstrip('+')} without the plus")
    inside = override.value()
    for name in inside if isinstance(inside, dict) else ():
        _check_key(f"{key}.{name}", final)


def knobs_of_choice(family: str, choice: Choice) -> dict[str, Any]:
    """Returns the knobs of the family's chosen options, the common ones included."""
    known = common_knobs(family)
    for name in _names(choice):
        known |= knobs(family, name)
    return known


def _check_key(key: str, final: Mapping[str, Choice]) -> None:
    head, *rest = key.split(".")
    if head in FAMILIES:
        known = knobs_of_choice(head, final[head])
        if rest and not contains(known, rest):
            raise ConfigError(f"{key}: {_why_not_a_knob(head, rest, _names(final[head]), known)}")
    elif not contains(primary_knobs(), [head, *rest]):
        raise ConfigError(f"{key}: there is no such key{_hint(key, final)}")


def _hint(key: str, final: Mapping[str, Choice]) -> str:
    """Returns the suggestion for an unknown key."""
    head, *rest = key.split(".")
    family = difflib.get_close_matches(head, FAMILIES, n=1)
    if rest and family:  # the family is misspelt: the rest is checked once it is right
        return f"; did you mean {'.'.join([*family, *rest])}?"
    if key.split(".")[-1] in ELSEWHERE:
        return f"; {ELSEWHERE[key.split('.')[-1]]}"
    single = {family: chosen for family, chosen in final.items() if isinstance(chosen, str)}
    owners = [family for family, chosen in single.items() if head in knobs_of_choice(family, chosen)]
    if len(owners) == 1 and not rest:
        return f"; did you mean {owners[0]}.{head}?"
    hint = suggest(key, [*dotted(primary_knobs()), *FAMILIES])
    return hint.or_else("; see dltips train --help")


def _why_not_a_knob(family: str, path: list[str], chosen: list[str], known: Mapping[str, Any]) -> str:
    if family == "optimizer" and path[0] == "weight_decay":
        return "weight decay is a regularization here; write regularization=weight_decay (adamw has its own)"
    others = [name for name in options(family) if name not in chosen]
    owners = [name for name in others if contains(knobs(family, name), path)]
    on = f"{family}={','.join(chosen)}"
    if owners and family in STACKABLE:
        switched_on = ",".join([*(name for name in chosen if name != "none"), *owners])
        return f"{path[0]} is not switched on; write '{family}=[{switched_on}]'"
    if owners:
        choice = owners[0] if len(owners) == 1 else "OPTION"
        return f"{on} has no such knob; it belongs to {', '.join(owners)}: write {family}={choice}"
    return f"{on} has no such knob{suggest('.'.join(path), dotted(known))}"


def _names(choice: Choice) -> list[str]:
    return [choice] if isinstance(choice, str) else list(choice)
