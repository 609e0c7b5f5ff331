"""Registers a family's tips by name, and checks their knobs against their signatures."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from dltips import metrics, paths
from dltips.errors import ConfigError, WrongType, suggest

FAMILIES = (
    "data",
    "preprocessing",
    "augmentation",
    "model",
    "activation",
    "init",
    "regularization",
    "optimizer",
    "schedule",
    "finetune",
)
STACKABLE = ("augmentation", "regularization")

Function = TypeVar("Function", bound=Callable[..., Any])


# Bounds of a knob, in its annotation: `lr: Positive`, `p: Probability`


@dataclass(frozen=True)
class Bounds:
    """Closed bounds; `above` excludes its own value."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf

    def describe(self) -> str:
        if self.above > -math.inf:
            return f"above {self.above:g}" + (f" and at most {self.most:g}" if self.most < math.inf else "")
        if self.most < math.inf:
            return f"from {self.least:g} to {self.most:g}"
        return f"at least {self.least:g}"


class _EpochScore:
    """Marks a text as the name of a score that each epoch has."""


Positive = Annotated[float, Bounds(above=0)]
NonNegative = Annotated[float, Bounds(least=0)]
Fraction = Annotated[float, Bounds(least=0, most=1)]
Count = Annotated[int, Bounds(least=0)]
Size = Annotated[int, Bounds(least=1)]
Score = Annotated[str, _EpochScore()]


@dataclass(frozen=True)
class Tip:
    """One chosen option of a family with checked knobs; calling it supplies the knobs."""

    family: str
    name: str
    function: Callable[..., Any]
    knobs: Mapping[str, Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments, **self.knobs)


class Registry:
    """The tips of one family. As a decorator, it takes a function's name as the option's name."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.tips: dict[str, Callable[..., Any]] = {}
        self.shared: Callable[..., Any] | None = None

    def __call__(self, function: Function) -> Function:
        return self.named(function.__name__)(function)

    def named(self, name: str) -> Callable[[Function], Function]:
        """Registers an option whose name is not a good name in Python: `@optimizer.named("torch")`."""

        def add(function: Function) -> Function:
            taken = self.tips.get(name)
            if taken is not None and taken.__module__ != function.__module__:
                raise ConfigError(f"{self.family}={name}: {function.__module__} defines a tip that dltips has already")
            self.tips[name] = function
            return function

        return add

    def common(self, function: Function) -> Function:
        """Marks the one function that takes the knobs which all options share (configs/<family>/_common.yaml)."""
        self.shared = function
        return function

    def bind(self, name: str, knobs: Mapping[str, Any], prefix: str) -> Tip:
        """Returns the option with its knobs checked against its signature. Raises ConfigError."""
        if name not in self.tips:
            raise ConfigError(f"{self.family}: {name!r} is not an option{suggest(name, self.tips)}")
        function = self.tips[name]
        return Tip(self.family, name, function, check_knobs(prefix, knobs, knobs_of(function), f"{self.family}={name}"))

    def bind_common(self, knobs: Mapping[str, Any]) -> Tip:
        """Returns the function that the family shares, its knobs checked."""
        assert self.shared is not None
        return Tip(
            self.family, "_common", self.shared, check_knobs(self.family, knobs, knobs_of(self.shared), self.family)
        )

    def common_knobs(self) -> frozenset[str]:
        return frozenset(knobs_of(self.shared)) if self.shared is not None else frozenset()

    def knobs_wanted_from_common(self, name: Any) -> frozenset[str]:
        """Returns the common knobs that an option takes itself: its signature names them, its YAML does not."""
        shared = self.common_knobs()
        return shared & frozenset(knobs_of(self.tips[name])) if shared and name in self.tips else frozenset()


_registries = {name: Registry(name) for name in FAMILIES}


def family(name: str) -> Registry:
    """Returns the registry that a module of tips fills: `init = family("init")`."""
    return _registries[name]


def load() -> Mapping[str, Registry]:
    """Imports every module of the families and the user's own tips; returns the filled registries."""
    for name in FAMILIES:
        module = importlib.import_module(f"dltips.tips.{name}")
        for part in pkgutil.iter_modules(getattr(module, "__path__", ())):
            importlib.import_module(f"{module.__name__}.{part.name}")
    for name in paths.user_modules():
        _import_user_module(name)
    return _registries


def score_names() -> list[str]:
    """Returns the scores of each epoch, those of the user's metrics included. Raises ConfigError as `load` does."""
    if paths.user_modules():  # else the table is complete, and nothing has to be imported
        load()
    return metrics.score_names()


def direction(metric: str) -> metrics.Better:
    """Returns which way is better of a deciding metric, the user's own included."""
    if metrics.better(metric) is None:
        score_names()
    return metrics.direction(metric)


def user_file(name: str) -> Path:
    """Returns the file of one of the user's modules. Raises ConfigError."""
    file = paths.module_file(name)
    if file is None:
        raise ConfigError(f"DLTIPS_IMPORT: {name!r} is neither an importable module nor a .py file")
    return file


def _import_user_module(name: str) -> None:
    file = user_file(name)
    # two files of one name, in different folders, are two modules
    module_name = f"dltips_user_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    try:
        if not name.endswith(".py"):
            importlib.import_module(name)
        elif module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(module_name, None)
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"DLTIPS_IMPORT: {file} cannot be imported ({type(error).__name__}: {error}); try python {file}"
        ) from error


@functools.cache  # typing evaluates annotations anew each time: half of a config's validation
def knobs_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Returns the knobs of a tip: its keyword-only arguments with their annotations."""
    owner: Callable[..., Any] = function.__init__ if inspect.isclass(function) else function
    hints = typing.get_type_hints(owner, include_extras=True)
    knobs = [p.name for p in inspect.signature(owner).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in knobs:
        if name not in hints:
            raise ConfigError(f"{function.__module__}.{function.__qualname__}: its knob {name} has no annotation")
    return {name: hints[name] for name in knobs}


def check_knobs(prefix: str, values: Mapping[str, Any], schema: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Returns the knobs, all present, none unknown, each of its type and within its bounds. Raises ConfigError."""

    def path(key: str) -> str:
        return f"{prefix}.{key}" if prefix else key

    for key in values:
        if key not in schema:
            raise ConfigError(f"{path(str(key))}: {owner} has no such key{suggest(str(key), schema)}")
    for key in schema:
        if key not in values:
            raise ConfigError(f"{path(key)}: is missing; give it a value")
    return {key: check_value(path(key), values[key], annotation) for key, annotation in schema.items()}


def check_value(key: str, value: Any, annotation: Any) -> Any:
    """Returns the value, converted where nothing is lost (1 for a float). Raises ConfigError."""
    origin = typing.get_origin(annotation)
    if isinstance(value, str) and value == "???":
        raise ConfigError(f"{key}: is missing; give it a value")  # OmegaConf's mark of a missing value
    if origin is Annotated:
        plain, *extras = typing.get_args(annotation)
        value = check_value(key, value, plain)
        for bounds in extras:
            if isinstance(bounds, Bounds) and not (bounds.least <= value <= bounds.most and value > bounds.above):
                raise ConfigError(f"{key}: {value!r} is out of range; it must be {bounds.describe()}")
            if isinstance(bounds, _EpochScore) and value not in metrics.score_names():
                names = score_names()
                if value not in names:
                    raise ConfigError(f"{key}: {value!r} is not a score of an epoch{suggest(value, names)}")
        return value
    if origin in (Union, types.UnionType):
        return _check_union(key, value, typing.get_args(annotation))
    if origin is Literal:
        choices = typing.get_args(annotation)
        # True == 1 == 1.0, so the type decides as well
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            hint = suggest(str(value), [str(choice) for choice in choices]).or_else("")
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(str, choices))}{hint}")
        return value
    if origin in (tuple, list):
        element = typing.get_args(annotation)[0]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}: {value!r} is not a list; write '{key}=[...]'")
        return tuple(check_value(f"{key}[{index}]", item, element) for index, item in enumerate(value))
    if origin is dict or annotation is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}: {value!r} is not a mapping; write '{key}.NAME=VALUE'")
        return dict(value)
    return _check_plain(key, value, annotation)


def _check_union(key: str, value: Any, members: tuple[Any, ...]) -> Any:
    if value is None and type(None) in members:
        return None
    problem = ConfigError(f"{key}: is missing; give it a value")
    for member in members:
        if member is not type(None):
            try:
                return check_value(key, value, member)
            except ConfigError as error:
                problem = error
    raise problem


def _check_plain(key: str, value: Any, kind: type) -> Any:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if kind not in names:
        raise ConfigError(
            f"{key}: a knob cannot be of type {getattr(kind, '__name__', kind)}; fix the tip's annotation"
        )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{key}: {value!r} is out of range; it must be finite")
        return float(value)
    if kind is int and type(value) is int and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{key}: {value!r} is out of range; it must fit 64 bits")
    if type(value) is kind:
        return value
    if value is None:
        raise ConfigError(f"{key}: null is not allowed; it takes {names[kind]}")
    raise WrongType(f"{key}: {value!r} is not {names[kind]}", kind)
