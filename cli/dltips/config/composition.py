"""Composes a run's config: Hydra composes the options; recipes' values, then typed ones (the last wins), go on top.

Everything is parsed and checked here first, against our own YAML files. Hydra, through its public API alone, gets the
names of existing options and nothing else. Values never pass through a text on their way into the config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dltips import paths
from dltips.catalog.registry import FAMILIES, user_file
from dltips.config import hydra_keys, recipes
from dltips.config.checks import check_choice, check_form, check_value
from dltips.config.option_files import PRIMARY, common_knobs, primary_choices
from dltips.config.overrides import is_hydras, parse, recipe_names, refuse_sweeps
from dltips.config.plain import to_plain
from dltips.config.recipes import GROUP, Choice, Recipe
from dltips.errors import ConfigError

# 1.3 warns if no version is given, 1.4 warns if one is
DEFAULTS_OF: dict[str, Any] = {"version_base": None} if hydra.__version__.startswith("1.3.") else {}


@dataclass(frozen=True)
class Request:
    """A checked request for one run: its options, and the values set over theirs, in order."""

    choices: Mapping[str, Choice]  # one option, or a list of them, by family
    recipes: Sequence[Recipe]  # the requested ones, each after those that it includes
    from_recipes: Sequence[Mapping[str, Any]]  # the recipes' values that fit the choices
    typed: Sequence[Override]
    left_out: Sequence[str]  # one text for each recipe value whose option is not chosen


def compose(overrides: Sequence[str]) -> tuple[DictConfig, list[str]]:
    """Returns the config of one run, and one text per family whose knobs were ignored. Raises ConfigError."""
    parsed = parse(overrides)
    hydra_keys.refuse_launcher(parsed)
    asked = request(parsed)
    return _composed(asked, hydras=False), list(asked.left_out)


def compose_with_hydras(overrides: Sequence[str]) -> DictConfig:
    """Returns the same, with Hydra's section and the chosen launcher as `hydra`. Raises ConfigError."""
    parsed = parse(overrides)
    launcher = hydra_keys.launcher(parsed)
    config = _composed(request(parsed), hydras=True)
    own = to_plain(config.hydra)
    del own["help"], own["hydra_help"]
    if launcher["name"] != hydra_keys.BASIC:
        own["launcher"] = launcher
        own["runtime"]["choices"][hydra_keys.LAUNCHER] = launcher["name"]
    own["overrides"] = {
        "hydra": [each.input_line for each in parsed if is_hydras(each.key_or_group)],
        "task": [each.input_line for each in parsed if not is_hydras(each.key_or_group)],
    }
    del config["hydra"]
    return OmegaConf.create({"hydra": own, **to_plain(config)})


def request(parsed: Sequence[Override], *, one_run: bool = True) -> Request:
    """Returns the request that the overrides make, without Hydra's own keys. Raises ConfigError.

    With `one_run=False` a key may have several values, as in a grid; it then counts as not set.
    """
    for module in paths.user_modules():
        user_file(module)
    primary = {family: choice for family, choice in primary_choices().items() if family in FAMILIES}
    parts = [part for name in recipe_names(parsed) for part in recipes.with_includes(name)]
    if one_run:
        refuse_sweeps(parsed)
    choices = _final_choices(primary, parts, parsed)
    for override in parsed:
        check_form(override)
    typed = [
        each for each in parsed if not is_hydras(each.key_or_group) and each.key_or_group not in (*FAMILIES, GROUP)
    ]
    typed = [override for override in typed if not override.is_sweep_override()]
    for override in typed:
        check_value(override, choices)
    common = {family: set(common_knobs(family)) for family in FAMILIES}
    fitted = [recipes.fit_to(part, primary, choices, common) for part in parts]
    left_out = [text for part in fitted for text in part.left_out]
    return Request(choices, parts, [part.values for part in fitted], typed, left_out)


def _final_choices(
    primary: Mapping[str, Choice], parts: Sequence[Recipe], parsed: Sequence[Override]
) -> dict[str, Choice]:
    """Returns the chosen options: config.yaml's, overridden by the recipes', overridden by what was typed."""
    choices = dict(primary)
    for part in parts:
        for family, choice in part.choices.items():
            check_choice(f"recipe {part.name}: {family}", family, choice)
            choices[family] = choice
    for override in parsed:
        value = None if override.is_sweep_override() else override.value()
        if override.key_or_group in FAMILIES and isinstance(value, str | list):
            choices[override.key_or_group] = value
    return choices


def _composed(asked: Request, *, hydras: bool) -> DictConfig:
    with errors_of_one_line():
        config = _options(asked.choices, hydras=hydras)
        OmegaConf.set_struct(config, False)  # unknown keys are reported by the validation
        for values in asked.from_recipes:
            config.merge_with(OmegaConf.create(dict(values)))
        for override in asked.typed:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
    return config


def _options(choices: Mapping[str, Choice], *, hydras: bool) -> DictConfig:
    """Returns config.yaml with these options, composed by Hydra."""
    lines = [f"{family}={_quoted(choice)}" for family, choice in choices.items()]
    if folders := paths.user_configs():
        lines.append(f"hydra.searchpath={_quoted([f'file://{folder}' for folder in folders])}")
    folder = str(paths.shipped("configs"))
    with _hydra_set_aside(), hydra.initialize_config_dir(folder, job_name="dltips", **DEFAULTS_OF):
        return hydra.compose(PRIMARY, lines, return_hydra_config=hydras)


def _quoted(value: str | Sequence[str]) -> str:
    """Quotes a name or a list of names for Hydra's grammar."""
    if not isinstance(value, str):
        return f"[{','.join(map(_quoted, value))}]"
    return QuotedString(value, Quote.single).with_quotes()


@contextmanager
def _hydra_set_aside() -> Iterator[None]:
    """Clears Hydra's global state, so that it can be initialized; restores the calling program's state afterwards."""
    state = GlobalHydra.instance()
    theirs = state.hydra
    state.clear()
    try:
        yield
    finally:
        state = GlobalHydra.instance()
        state.clear()
        if theirs is not None:
            state.initialize(theirs)


@contextmanager
def errors_of_one_line() -> Iterator[None]:
    """Turns the errors of Hydra, OmegaConf and PyYAML into ConfigErrors of one line."""
    try:
        yield
    except YAMLError as error:
        raise ConfigError(f"a YAML file cannot be read: {' '.join(str(error).split())}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from error
    except ValueError as error:
        if _is_hydras(error):
            raise ConfigError(_one_line(error)) from error
        raise


def _one_line(error: BaseException) -> str:
    text = str(error) or str(error.__cause__ or type(error).__name__)
    return next((line.strip() for line in text.splitlines() if line.strip()), text)


def _is_hydras(error: BaseException) -> bool:
    frames: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        frames.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    return frames[-1].startswith(("hydra.", "omegaconf."))
