"""What Hydra composes: command-line overrides checked before composition, recipes fitted to the final choices."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import hydra._internal.hydra as hydra_entry
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.conf import HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dltips import paths
from dltips.catalog.registry import FAMILIES, STACKABLE, user_file
from dltips.config import recipes
from dltips.config.overrides import parse, recipe_names, refuse_sweeps, values, with_plus
from dltips.config.recipes import GROUP, Choice, RecipeSource, TipsSearchPath
from dltips.config.validation import validate
from dltips.errors import ConfigError, suggest

LAUNCHER = "hydra/launcher"

# What other tools have a key for, and where it is here.
ELSEWHERE = {
    "drop_last": "nothing is dropped: the last, smaller batch is trained on, and a single sample joins its neighbour",
    "weight_decay": "write regularization=weight_decay",
    "num_workers": "data live on the device; what does not fit is streamed, see data.placement",
}


class Repository(ConfigRepository):
    """Hydra's repository, but what our checks have parsed Hydra does not parse again."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self._parsed: dict[str, ConfigResult | None] = {}

    def peek(self, config_path: str) -> ConfigResult | None:
        """A config as its file has it, to be read only; None if there is none."""
        if config_path not in self._parsed:
            self._parsed[config_path] = super().load_config(config_path)
        return self._parsed[config_path]

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path.startswith(f"{GROUP}/"):
            return super().load_config(config_path)  # fitted anew to each composition's choices
        # handed out once: Hydra's merging takes over the nodes and then changes them
        found = self._parsed.pop(config_path, None) or super().load_config(config_path)
        if found is not None and config_path.startswith("hydra/launcher/"):
            found.is_schema_source = True  # else Hydra merges it with what a plugin registers under the same name
        return found

    def __deepcopy__(self, memo: object) -> Repository:
        """Hydra copies the repository for each composition, to exchange its sources: the list, not what was parsed."""
        twin = copy.copy(self)
        twin.sources = copy.copy(self.sources)
        return twin


class Loader(ConfigLoaderImpl):
    """Hydra's loader, with dltips' rules before each composition: of a run, of `--cfg`, of each job of a sweep."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository: Repository = Repository(config_search_path)
        # what the recipes of the last composition set for options that are not chosen in the end, in words
        self.left_out: list[str] = []

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        if not validate_sweep_overrides and not any("hydra.mode" in override for override in overrides):
            # Hydra composes once more than it needs, only to read this key: a tenth of a second
            return OmegaConf.create({"hydra": {"mode": None}})
        for module in paths.user_modules():
            user_file(module)
        try:
            config = self._compose(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        except YAMLError as error:
            raise ConfigError(f"a YAML file cannot be read: {error}") from error
        return config

    def get_group_options(self, group_name: str, *arguments: Any, **options: Any) -> list[str]:
        """What help and completion show: without the knobs that a family's options share, which are no option."""
        found = super().get_group_options(group_name, *arguments, **options)
        return [name for name in found if not name.startswith("_")]

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """One run of a grid: Hydra asks for all of them before it starts the first, and so a bad one stops the grid."""
        config = super().load_sweep_config(master_config, sweep_overrides)
        validate(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
        return config

    def _compose(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool,
        validate_sweep_overrides: bool,
    ) -> DictConfig:
        overrides = [with_plus(override) for override in overrides]
        parsed = parse(overrides)
        sources = [source for source in self.repository.get_sources() if isinstance(source, RecipeSource)]
        assert sources, "the search path plugin is not registered"
        primary, final = self.primary_choices(config_name), self.final_choices(config_name, parsed)
        common = {family: set(self._knobs(f"{family}/_common")) for family in FAMILIES}
        overrides = [self._checked(override, config_name, final) for override in parsed]
        if run_mode == RunMode.RUN and validate_sweep_overrides:
            refuse_sweeps(parsed)
        parts = [part for name in recipe_names(parsed) for part in recipes.with_includes(name)]
        self.left_out = [text for part in parts for text in recipes.fit_to(part, primary, final, common).left_out]
        for source in sources:
            source.primary, source.final, source.common = primary, final, common
        return super().load_configuration(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)

    def primary_choices(self, config_name: str | None) -> dict[str, Choice]:
        """The options that config.yaml itself chooses."""
        loaded = self.repository.peek(config_name or "config")
        assert loaded is not None and loaded.defaults_list is not None
        chosen = {getattr(default, "group", None): getattr(default, "value", None) for default in loaded.defaults_list}
        return {family: choice for family in FAMILIES if (choice := chosen.get(family)) is not None}

    def final_choices(self, config_name: str | None, overrides: list[Override]) -> dict[str, Choice]:
        """The options chosen in the end: config.yaml's, over them the recipes', over them what was typed."""
        choices = self.primary_choices(config_name)
        for name in recipe_names(overrides):
            for part in recipes.with_includes(name):
                for family, choice in part.choices.items():
                    self._check_choice(f"recipe {part.name}: {family}", family, choice)
                    choices[family] = choice
        for override in overrides:
            value = override.value()
            if override.key_or_group in FAMILIES and not override.is_sweep_override() and isinstance(value, str | list):
                choices[override.key_or_group] = value
        return choices

    def _checked(self, override: Override, config_name: str | None, final: Mapping[str, Choice]) -> str:
        """The override as Hydra shall see it. Errors: ConfigError for what no config has."""
        line, key = str(override.input_line), override.key_or_group
        if key.startswith(("hydra.run.", "hydra.sweep.", "hydra.output_subdir", "hydra.job.chdir")):
            raise ConfigError(
                f"{line}: is refused; runs lie under ./outputs, and name=NAME shows in their folder's name"
            )
        if override.package is not None and (key == GROUP or not override.is_hydra_override()):
            raise ConfigError(
                f"{line}: a package cannot be set here; write {key}={'NAME' if key == GROUP else 'OPTION'}"
            )
        if override.is_hydra_override():
            known = [field.name for field in fields(HydraConf)]
            if key.startswith("hydra.") and key.split(".")[1] not in known:
                raise ConfigError(f"{key}: there is no such key{suggest(key.split('.')[1], known)}")
            launchers = self.repository.get_group_options(LAUNCHER) if key == LAUNCHER else []
            for value in values(override) if key == LAUNCHER else []:
                if value not in launchers:
                    raise ConfigError(f"{key}: {value!r} is no launcher{suggest(str(value), launchers)}")
            # a launcher's knobs are checked by it, with the nearest name; Hydra would only say that it cannot
            return f"++{line.lstrip('+')}" if key.startswith("hydra.launcher.") and not override.is_delete() else line
        if key == GROUP:
            # +recipe=, recipe= and ++recipe= all mean the same; Hydra knows the first
            return f"+{line.lstrip('+')}"
        if override.is_delete():
            raise ConfigError(f"{line}: nothing can be left out; set it to another value")
        if key in FAMILIES:
            for value in values(override):
                self._check_choice(key, key, value)
            if override.is_add() or override.is_force_add():
                raise ConfigError(f"{line}: {key} is chosen already; write {line.lstrip('+')} without the plus")
            return line
        self._check_key(key, final, config_name)
        if override.is_add():
            raise ConfigError(f"{line}: {key} is set already; write {line.lstrip('+')} without the plus")
        inside = override.value()
        for name in inside if isinstance(inside, dict) else ():
            self._check_key(f"{key}.{name}", final, config_name)
        # a knob that takes a mapping may get new keys, which Hydra wants marked
        marked = override.is_force_add() or not (isinstance(inside, dict) or key.count(".") >= 2)
        return line if marked else f"++{line}"

    def _check_choice(self, where: str, family: str, choice: Any) -> None:
        options = self._options(family)
        if isinstance(choice, list) and family not in STACKABLE:
            remedy = (
                f"write {family}={choice[0]}" if len(choice) == 1 else f"choose one of {', '.join(map(str, choice))}"
            )
            raise ConfigError(f"{where}: takes one option, not a list; {remedy}")
        names = choice if isinstance(choice, list) else [choice]
        if not names:
            raise ConfigError(f"{where}: an empty list chooses nothing; write {family}=none")
        for name in names:
            if not isinstance(name, str):
                raise ConfigError(f"{where}: {name!r} is no option; it takes the name of one{suggest('', options)}")
            if name not in options:
                raise ConfigError(f"{where}: {name!r} is no option{suggest(name, options)}")
            if names.count(name) > 1:
                raise ConfigError(f"{where}: {name} is given twice; once is enough")
        if "none" in names and len(names) > 1:
            rest = ",".join(name for name in names if name != "none")
            raise ConfigError(f"{where}: none beside others means nothing; write '{family}=[{rest}]'")

    def _check_key(self, key: str, final: Mapping[str, Choice], config_name: str | None) -> None:
        """Errors: ConfigError if the key lies neither in config.yaml nor in an option that is switched on."""
        head, *rest = key.split(".")
        if head in FAMILIES and rest:
            chosen = final[head]
            names = chosen if isinstance(chosen, list) else [chosen]
            known = self._knobs(f"{head}/_common")
            for name in names:
                known |= self._knobs(f"{head}/{name}")
            if not _contains(known, rest):
                raise ConfigError(f"{key}: {self._why_unknown(head, rest, names, known)}")
        elif head not in FAMILIES and not _contains(self._knobs(config_name or "config"), [head, *rest]):
            keys = _dotted(self._knobs(config_name or "config"))
            family = difflib.get_close_matches(head, FAMILIES, n=1)
            if rest and family:  # the family is misspelt: what follows is looked at when it is right
                raise ConfigError(f"{key}: there is no such key; did you mean {'.'.join([*family, *rest])}?")
            hint = suggest(key, [*keys, *FAMILIES]).or_else("; see dltips train --help")
            owners = [family for family, chosen in final.items() if self._has_knob(family, chosen, head)]
            if len(owners) == 1 and not rest:
                hint = f"; did you mean {owners[0]}.{head}?"
            if key.split(".")[-1] in ELSEWHERE:
                raise ConfigError(f"{key}: there is no such key; {ELSEWHERE[key.split('.')[-1]]}")
            raise ConfigError(f"{key}: there is no such key{hint}")

    def _has_knob(self, family: str, chosen: Choice, knob: str) -> bool:
        return isinstance(chosen, str) and knob in self._knobs(f"{family}/_common") | self._knobs(f"{family}/{chosen}")

    def _why_unknown(self, family: str, rest: list[str], chosen: list[str], known: Mapping[str, Any]) -> str:
        if family == "optimizer" and rest[0] == "weight_decay":
            return "weight decay is a regularization here; write regularization=weight_decay (adamw has its own)"
        options = [name for name in self._options(family) if name not in chosen]
        owners = [name for name in options if _contains(self._knobs(f"{family}/{name}"), rest)]
        on = f"{family}={','.join(chosen)}"
        if owners and family in STACKABLE:
            switched_on = ",".join([*(name for name in chosen if name != "none"), *owners])
            return f"{rest[0]} is not switched on; write '{family}=[{switched_on}]'"
        if owners:
            choice = owners[0] if len(owners) == 1 else "OPTION"
            return f"{on} has no such knob; it belongs to {', '.join(owners)}: write {family}={choice}"
        return f"{on} has no such knob{suggest('.'.join(rest), _dotted(known))}"

    def _options(self, family: str) -> list[str]:
        return [name for name in self.repository.get_group_options(family) if not name.startswith("_")]

    def _knobs(self, config_path: str) -> dict[str, Any]:
        """The keys of one of the config files, as plain data, without `name`."""
        loaded = self.repository.peek(config_path)
        plain = OmegaConf.to_container(loaded.config, resolve=False) if loaded is not None else {}
        assert isinstance(plain, dict)
        # `name` says which option of a family it is: it is chosen, never set
        hidden = ("hydra", "defaults", "name") if "/" in config_path else ("hydra", "defaults")
        known = {str(key): value for key, value in plain.items() if key not in hidden}
        return {key: _without_name(value) if "/" in config_path else value for key, value in known.items()}


def _contains(tree: Mapping[str, Any], path: list[str]) -> bool:
    head, *rest = path
    if head not in tree:
        return False
    # an empty mapping is a knob that takes any keys; what they mean is checked by their owner
    return not rest or (isinstance(tree[head], dict) and (not tree[head] or _contains(tree[head], rest)))


def _without_name(value: Any) -> Any:
    return {key: inner for key, inner in value.items() if key != "name"} if isinstance(value, dict) else value


def _dotted(tree: Mapping[str, Any]) -> list[str]:
    keys: list[str] = []
    for key, value in tree.items():
        inner = [f"{key}.{name}" for name in _dotted(value) if name != "name"] if isinstance(value, dict) else []
        keys += inner or [key]
    return keys


@contextmanager
def installed() -> Iterator[None]:
    """Within, @hydra.main composes by our loader, with recipes and the user's tips on the search path."""
    plugins = Plugins.instance()
    plugins.register(RecipeSource)
    plugins.register(TipsSearchPath)
    # Hydra has no setting for its loader; both names exist from 1.1 to 1.3, and a test fails if one goes away
    theirs = vars(hydra_entry)["ConfigLoaderImpl"]
    setattr(hydra_entry, "ConfigLoaderImpl", Loader)  # noqa: B010
    try:
        yield
    finally:
        setattr(hydra_entry, "ConfigLoaderImpl", theirs)  # noqa: B010


@contextmanager
def errors_of_one_line() -> Iterator[None]:
    """Within, what Hydra and OmegaConf complain of is a ConfigError."""
    try:
        yield
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


def compose(overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """The config that `dltips train` would run with these overrides, and what its recipes left out, in words.

    Errors: ConfigError, the same as of `dltips train`.
    """
    version.setbase("1.3")
    with errors_of_one_line(), installed():
        loader = Loader(create_config_search_path(f"file://{paths.shipped('configs')}"))
        config = loader.load_configuration("config", overrides, RunMode.RUN)
        composed = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return composed, loader.left_out
