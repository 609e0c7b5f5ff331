"""Resolves a search space, given in Hydra's sweep syntax: a base config, and a range or choices per key."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from dltips.catalog import source_reader
from dltips.catalog.registry import FAMILIES
from dltips.config.composition import compose
from dltips.config.overrides import parse, value_of
from dltips.config.plain import flat, leaves, to_plain
from dltips.config.recipes import GROUP
from dltips.config.redaction import redacted
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError, WrongType

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

# Keys that a search must not vary, and the reasons
NOT_SEARCHABLE = {
    "seed": "seeds are not searched over, or the luckiest wins; write seeds={count} to average over as many",
    "data": "scores on different data cannot be compared; write data=ONE and search apart",
    "metric": "the objective is one for all trials; write objective=METRIC",
    GROUP: "recipes cannot be searched over; write recipe=ONE and search over its settings",
    "name": "it does not change the result",
    "resume": "it does not change the result",
    "device": "it does not change the result",
    "devices": "it does not change the result",
    "log": "it does not change the result",
    "checkpoint": "it does not change the result",
}
WITHOUT_EFFECT = ("name", "resume", "device", "devices", "log", "checkpoint")  # may differ within a study
DECADES = 2  # a linear interval over so many powers of ten draws a hundredth of its trials from the lowest one

# Other tools' names of distributions, mistyped here as NAME(low, high)
FOREIGN_DISTRIBUTION = re.compile(
    r"(?P<key>[^=]+)=(?P<name>log|loguniform|log_uniform|uniform|logint|tag\(\s*log\s*,)\(?"
    r"(?P<ends>\s*[-+.\deE]+\s*,\s*[-+.\deE]+\s*)\)+"
)


@dataclass(frozen=True)
class Dimension:
    """One swept key: numbers from low to high, both included (in steps if `step` is given), or choices.

    A trial holds a number, or the label of a choice. `values` are the settings behind the labels: for a family the
    whole section of its option.
    """

    key: str
    kind: Literal["float", "int", "choice"]
    typed: str  # as it was typed: interval(0.0001,1)
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    labels: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.labels)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def setting(self, value: Any) -> Any:
        """Returns the setting of a trial's value in its config."""
        if self.kind == "choice":
            return copy.deepcopy(self.values[self.labels.index(value)])
        # 0.1 + 2 * 0.1 is 0.30000000000000004: twelve digits are what was typed
        return int(value) if self.kind == "int" else float(f"{value:.12g}") if self.step else float(value)

    def value_of(self, plain: Mapping[str, Any], apart: Sequence[str]) -> Any:
        """Returns the value of a config's setting, without separately searched knobs; None if there is none."""
        setting: Any = plain
        for part in self.key.split("."):
            setting = setting.get(part) if isinstance(setting, Mapping) else None
        if self.kind != "choice":
            return setting if type(setting) in (int, float) and self.low <= setting <= self.high else None

        def core(section: Any) -> dict[str, Any]:
            return {key: value for key, value in flat({self.key: section}).items() if key not in apart}

        pairs = zip(self.labels, self.values, strict=True)
        return next((label for label, value in pairs if core(value) == core(setting)), None)

    def told(self, value: Any) -> Any:
        """Returns the value for display: a family's options by name."""
        return value if self.kind == "choice" and self.key in FAMILIES else self.setting(value)

    def suggest(self, trial: Trial) -> Any:
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, self.labels)
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def extremes(self) -> Iterator[Any]:
        """Yields the values checked before the first trial starts: all choices, or both ends."""
        yield from self.labels if self.kind == "choice" else (self.low, self.high)


@dataclass(frozen=True)
class Space:
    """The frozen search space: plain data, so that editing a YAML during a search changes nothing."""

    base: Mapping[str, Any]
    dimensions: tuple[Dimension, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the config of the trial with these values."""
        plain = copy.deepcopy(dict(self.base))
        # a family's section first: its knobs are inside it
        for dimension in sorted(self.dimensions, key=lambda dimension: dimension.key.count(".")):
            if dimension.key in values:
                _set(plain, dimension.key.split("."), dimension.setting(values[dimension.key]))
        return plain

    def values(self, plain: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the values that give a trial this config; None if it is not a trial of this space."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            inner = [other.key for other in self.dimensions if other.key.startswith(f"{dimension.key}.")]
            if (value := dimension.value_of(plain, inner)) is None:
                return None
            found[dimension.key] = value
        return found

    def varied(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a trial's values for display: {"init": "he", "optimizer.lr": 0.1}."""
        return {d.key: d.told(values[d.key]) for d in self.dimensions if d.key in values}

    def first(self) -> dict[str, Any]:
        return {dimension.key: next(dimension.extremes()) for dimension in self.dimensions}

    def distributions(self) -> dict[str, BaseDistribution]:
        return {dimension.key: dimension.distribution() for dimension in self.dimensions}

    def most(self, key: str) -> int:
        """Returns the largest value of an integer setting in any trial."""
        values = [self.base[key]]
        for dimension in self.dimensions:
            if dimension.key == key:
                values = [dimension.setting(value) for value in dimension.extremes()]
        return max(int(value) for value in values)

    def check(self, look: Callable[[Config], object] = lambda config: None) -> Config:
        """Validates every choice and both ends of every interval; returns a config. Raises ConfigError."""
        for dimension in self.dimensions:
            for value in dimension.extremes():
                try:
                    config = validate(self.plain(self.first() | {dimension.key: value}))
                    look(config)
                except ConfigError as error:
                    raise self._with_remedy(dimension, error) from error
        return config

    def _with_remedy(self, tried: Dimension, error: ConfigError) -> ConfigError:
        named = next((dimension for dimension in self.dimensions if dimension.key == error.key), None)
        if named is None:
            return ConfigError(f"{tried.key}={tried.typed}: {error}")
        if named.kind == "float" and isinstance(error, WrongType) and error.wanted is int:
            whole = f"int({named.typed})" if named.step is None else "range(FIRST,END,STEP)"
            return ConfigError(f"{named.key}: takes whole numbers; write '{named.key}={whole}'")
        return error

    def to_json(self) -> dict[str, Any]:
        return {"base": dict(self.base), "dimensions": [asdict(dimension) for dimension in self.dimensions]}

    def differences(self, other: Space) -> list[str]:
        """Returns the differences of two spaces: ["optimizer.lr=interval(0,1) (not interval(0,2))", ...]."""
        found = []
        varied, others_varied = ({d.key: d.typed for d in space.dimensions} for space in (self, other))
        for key in sorted({*varied, *others_varied}):
            if varied.get(key) != others_varied.get(key):
                found.append(f"{key}={varied.get(key, 'as it is')} (not {others_varied.get(key, 'as it is')})")
        ours, others = (_with_effect(space.plain(space.first())) for space in (self, other))
        swept = {part for key in (*varied, *others_varied) for part in (key, *_of_family(key, (*ours, *others)))}
        found += [
            f"{key}={ours.get(key)} (not {others.get(key)})"
            for key in sorted({*ours, *others} - swept)
            if ours.get(key) != others.get(key)
        ]
        if not found and _core(self) != _core(other):
            found = ["the options' own settings, which a YAML file has changed"]
        return found


def _of_family(key: str, keys: Sequence[str]) -> list[str]:
    return [other for other in keys if key in FAMILIES and other.startswith(f"{key}.")]


def _core(space: Space) -> str:
    stored = space.to_json()
    stored["base"] = {key: value for key, value in stored["base"].items() if key not in WITHOUT_EFFECT}
    return json.dumps(stored, sort_keys=True)


def from_json(stored: Mapping[str, Any]) -> Space:
    """Returns the space that to_json wrote. Raises KeyError, TypeError for other data."""
    dimensions = [
        Dimension(**{**each, "labels": tuple(each["labels"]), "values": tuple(each["values"])})
        for each in stored["dimensions"]
    ]
    return Space(stored["base"], tuple(dimensions))


def refuse_foreign(overrides: Sequence[str]) -> None:
    """Raises ConfigError for another tool's distribution: log(1e-4,1)."""
    for typed in overrides:
        match = FOREIGN_DISTRIBUTION.fullmatch(typed.lstrip("+"))
        if match is None:
            continue
        key, name, ends = match["key"], match["name"], "".join(match["ends"].split())
        interval = f"int(interval({ends}))" if name == "logint" else f"interval({ends})"
        remedy = interval if name == "uniform" else f"tag(log,{interval})"
        raise ConfigError(f"{typed}: is not a range; write '{key}={remedy}'")


def resolve(overrides: Sequence[str]) -> Space:
    """Returns the space of the overrides. Raises ConfigError, in one line.

    Hydra composes once, and once more per option of a searched family. Choices and ends are not validated yet: `check`
    does that, and imports torch.
    """
    refuse_foreign(overrides)
    parsed = parse(list(overrides))
    swept = [override for override in parsed if override.is_sweep_override()]
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    if not swept:
        raise ConfigError(
            "sweep: nothing is searched over; give a key choices or an interval:"
            " 'optimizer.lr=tag(log,interval(1e-4,1))'"
        )
    bare = [_dimension(override) for override in swept]
    keys = [dimension.key for dimension in bare]
    for key in keys:
        if keys.count(key) > 1 or any(override.key_or_group == key for override in parsed if override not in swept):
            raise ConfigError(f"{key}: is given twice; once is enough")
    firsts = {d.key: f"{d.key}={next(iter(_typed_values(d)))}" for d in bare}
    composed, notes = compose([*fixed, *firsts.values()])
    base = to_plain(composed)
    dimensions = []
    for dimension in bare:
        if dimension.key in FAMILIES:
            sections = tuple(_section(dimension.key, label, fixed, firsts) for label in dimension.labels)
            dimension = Dimension(**{**_fields(dimension), "values": sections})
        dimensions.append(dimension)
    space = Space(base, tuple(dimensions), (*notes, *(note for d in dimensions for note in _linear_over_decades(d))))
    _refuse_secrets(space)
    return space


def _fields(dimension: Dimension) -> dict[str, Any]:
    return {name: getattr(dimension, name) for name in Dimension.__dataclass_fields__}


def _section(family: str, label: str, fixed: list[str], firsts: Mapping[str, str]) -> Any:
    """Returns the family's section with this option, as Hydra composes it with the other overrides."""
    others = [line for key, line in firsts.items() if key != family]
    try:
        return to_plain(compose([*fixed, *others, f"{family}={label}"])[0])[family]
    except ConfigError as error:
        inside = [key for key in firsts if key.startswith(f"{family}.")]
        hint = f"; a knob of one option only is searched apart: leave out {family} or {inside[0]}" if inside else ""
        head = "" if error.key == family else f"{family}={label}: "
        raise ConfigError(f"{head}{error}{hint}") from error


def _dimension(override: Override) -> Dimension:
    key, value = override.key_or_group, override.value()
    typed = str(override.get_value_string())
    _refuse_key(key, override)
    tags = set(getattr(value, "tags", ()))
    if tags - {"log"}:
        raise ConfigError(f"{key}: the tag {sorted(tags - {'log'})[0]} means nothing here; there is: log")
    if getattr(value, "shuffle", False):
        raise ConfigError(f"{key}: shuffle means nothing in a search, which draws as its sampler does; leave it out")
    if isinstance(value, IntervalSweep):
        return _interval(key, value, typed, "log" in tags)
    if tags:
        raise ConfigError(f"{key}: log goes with an interval; write '{key}=tag(log,interval(LOW,HIGH))'")
    if isinstance(value, RangeSweep):
        return _range(key, value, typed)
    if isinstance(value, Glob):
        if key not in FAMILIES:
            raise ConfigError(f"{key}: glob is for the options of a family; write the values")
        labels = value.filter(sorted(source_reader.options(key)))
        values: list[Any] = list(labels)
    else:
        assert isinstance(value, ChoiceSweep)
        labels = list(override.sweep_string_iterator())
        values = [value_of(label) for label in labels]
    if not labels:
        raise ConfigError(f"{key}={typed}: chooses nothing; see dltips ls {key}")
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"{key}: {label} is given twice; once is enough")
    return Dimension(key, "choice", typed, labels=tuple(labels), values=tuple(values))


def _with_effect(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat(plain).items() if key.split(".")[0] not in WITHOUT_EFFECT}


def _refuse_key(key: str, override: Override) -> None:
    top = key.split(".")[0]
    reason = NOT_SEARCHABLE.get(key) or (NOT_SEARCHABLE.get(top) if top in WITHOUT_EFFECT else None)
    if key.startswith("hydra"):
        reason = "Hydra's own settings do not change the result"
    if reason is not None:
        count = "3"
        if "{count}" in reason and not override.is_interval_sweep():
            count = str(max(2, len(list(override.sweep_string_iterator()))))
        raise ConfigError(f"{key}: {reason.format(count=count)}")


def _interval(key: str, value: IntervalSweep, typed: str, log: bool) -> Dimension:
    low, high = value.start, value.end
    if key in FAMILIES:
        raise ConfigError(f"{key}: takes options, not an interval; see dltips ls {key}")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(f"{key}: {typed} has no two finite ends; write '{key}=interval(LOW,HIGH)'")
    whole = isinstance(low, int) and isinstance(high, int)
    if low > high:
        swapped = typed.replace(" ", "")
        for ends in re.findall(r"interval\(([^,()]+),([^,()]+)\)", swapped):
            swapped = swapped.replace(f"{ends[0]},{ends[1]}", f"{ends[1]},{ends[0]}")
        raise ConfigError(f"{key}: {typed} begins above its end; write '{key}={swapped}'")
    if low == high:
        raise ConfigError(f"{key}: {typed} has one value alone; write {key}={low:g}")
    if log and low <= 0:
        raise ConfigError(f"{key}: {typed} begins at {low:g}, which has no logarithm; begin above 0")
    return Dimension(key, "int" if whole else "float", typed, low, high, 1 if whole else None, log)


def _range(key: str, value: RangeSweep, typed: str) -> Dimension:
    if key in FAMILIES:
        raise ConfigError(f"{key}: takes options, not numbers; see dltips ls {key}")
    if not value.step or value.start is None or value.stop is None:
        raise ConfigError(f"{key}: {typed} has no step; write '{key}=range(FIRST,END,STEP)'")
    points = sorted(float(f"{point:.12g}") for point in value.range())
    if not points:
        raise ConfigError(f"{key}: {typed} is empty; it ends before it begins")
    if len(points) == 1:
        raise ConfigError(f"{key}: {typed} has one value alone; write {key}={points[0]:g}")
    whole = all(isinstance(part, int) for part in (value.start, value.stop, value.step))
    return Dimension(key, "int" if whole else "float", typed, points[0], points[-1], abs(float(value.step)))


def _typed_values(dimension: Dimension) -> Iterator[str]:
    """Yields the values as typed on a command line."""
    if dimension.kind == "choice":
        yield from dimension.labels
    else:
        for value in dimension.extremes():
            yield str(int(value)) if dimension.kind == "int" else repr(float(value))


def _linear_over_decades(dimension: Dimension) -> Iterator[str]:
    wide = dimension.low > 0 and dimension.high / dimension.low >= 10**DECADES
    if dimension.kind != "choice" and not dimension.log and wide and dimension.step in (None, 1):
        decades = math.log10(dimension.high / dimension.low)
        yield (
            f"{dimension.key}: {dimension.typed} is linear over {decades:.0f} decades, so that nine of ten trials draw"
            f" from the last one; did you mean '{dimension.key}=tag(log,{dimension.typed})'?"
        )


def _refuse_secrets(space: Space) -> None:
    """Raises ConfigError for a secret, which would be redacted in the data stored for the workers."""
    trees = [dict(space.base), *({d.key: dict(enumerate(d.values))} for d in space.dimensions)]
    for tree in trees:
        hidden = dict(leaves(redacted(tree)))
        for key, value in leaves(tree):
            if hidden[key] != value:
                raise ConfigError(
                    f"{key}: looks like a secret, and a sweep stores its config; write '${{oc.env:NAME}}'"
                )


def _set(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    head, *rest = path
    if not rest:
        tree[head] = value
        return
    inner = tree.get(head)
    tree[head] = dict(inner) if isinstance(inner, Mapping) else {}
    _set(tree[head], rest, value)
