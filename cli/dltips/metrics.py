"""The table of metrics, and goals such as epochs_to: a name, its source, which way is better, a line of description.

The loop, evaluate, compare, search, HParams and the lists read this table. A user adds a metric as he adds a tip, in a
file named by DLTIPS_IMPORT:

    @metric(better="higher")
    def cohen_kappa(confusion):
        "Agreement beyond chance (Cohen 1960)."
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, SupportsFloat, TypeVar, cast, get_args

from dltips.errors import ConfigError

Better = Literal["higher", "lower"]
Source = Literal["loop", "confusion", "record", "layer", "run", "goal"]
Function = TypeVar("Function", bound=Callable[..., Any])

# The possible arguments of a metric's function, by name
INPUTS = {
    "confusion": "the counts of a split: (K, K) int64 numpy array, read-only, rows are the true class",
    "record": "the line of metrics.jsonl of an epoch that trained, up to its scores: name -> number",
}
# Keys of `dltips evaluate --json` and of records that are not metrics
RESERVED = (
    *("run", "checkpoint", "epoch", "samples", "classes", "per_class", "confusion", "test_reads"),
    *("step", "lr", "best", "last", "status"),
)
PER = {
    **dict.fromkeys(("loop", "confusion", "record"), "each epoch"),
    "layer": "each epoch and layer",
    **dict.fromkeys(("run", "goal"), "whole run"),
}


@dataclass(frozen=True)
class Metric:
    """One entry of the table.

    `source` is what it is computed from: the training loop itself, the confusion counts of a split, an epoch's record,
    a layer on the probe batch, the whole run (its summary.json), or the run's curve up to a goal. `better` is None
    where neither way is better. `splits` are those for which each epoch has the metric.
    """

    name: str
    source: Source
    better: Better | None
    says: str
    splits: tuple[str, ...] = ()
    function: Callable[[Any], Any] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Returns its names in metrics.jsonl, as users type them: val/accuracy, train/accuracy."""
        return tuple(f"{split}/{self.name}" for split in self.splits) or (self.name,)

    @property
    def line(self) -> str:
        """Returns its description, its source, and which way is better."""
        better = f"; {self.better} is better" if self.better else ""
        return f"{self.says.rstrip('.')} ({PER[self.source]}{better})".lstrip()


TABLE: dict[str, Metric] = {}


def metric(*, better: Better) -> Callable[[Function], Function]:
    """Registers a function as a metric of its name; its one argument, of INPUTS, says what it is computed from.

    One of `confusion` is computed on each validation split and by `dltips evaluate`, and is called val/NAME elsewhere.
    It returns a number. A division by zero, NaN or infinity is recorded as NaN. Raises ConfigError for a wrong
    direction or argument, and for a name that is taken.
    """

    def add(function: Function) -> Function:
        name = function.__name__
        if better not in get_args(Better):
            raise ConfigError(f"metric {name}: better={better!r} is neither 'higher' nor 'lower'")
        arguments = list(inspect.signature(function).parameters)
        if len(arguments) != 1 or arguments[0] not in INPUTS:
            raise ConfigError(
                f"metric {name}: its one argument says what it is computed from; write def {name}(confusion), or"
                f" def {name}(record)"
            )
        taken = TABLE.get(name)
        if name in RESERVED or (taken is not None and getattr(taken.function, "__module__", "") != function.__module__):
            raise ConfigError(f"metric {name}: the name is taken; give the function in {function.__module__} another")
        TABLE[name] = entry(name, better, arguments[0], inspect.getdoc(function) or "", function)
        return function

    return add


def entry(
    name: str, better: Better, argument: str, docstring: str, function: Callable[[Any], Any] | None = None
) -> Metric:
    """Returns the table's entry of a decorated function."""
    source, splits = ("record", ()) if argument == "record" else ("confusion", ("val",))
    return Metric(name, cast(Source, source), better, docstring.split("\n")[0], splits, function)


# Scores of each epoch


def _class_counts(confusion: Any) -> tuple[list[int], list[int], list[int]]:
    """Returns three counts per class: correct, actual, predicted."""
    return confusion.diagonal().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()


def accuracy(confusion: Any) -> float:
    hits, actual, _ = _class_counts(confusion)
    return sum(hits) / sum(actual)


def _add(*entries: Metric) -> None:
    TABLE.update((entry.name, entry) for entry in entries)


_add(
    Metric("accuracy", "confusion", "higher", "share of the samples classified correctly", ("val", "train"), accuracy),
    Metric("loss", "loop", "lower", "mean cross-entropy; in training that of the criterion", ("val", "train")),
)


@metric(better="higher")
def balanced_accuracy(confusion: Any) -> float:
    """mean recall over the classes present, as in scikit-learn"""
    hits, actual, _ = _class_counts(confusion)
    recalls = [hit / there for hit, there in zip(hits, actual, strict=True) if there]
    return sum(recalls) / len(recalls)


@metric(better="higher")
def macro_f1(confusion: Any) -> float:
    """mean F1 over the classes present or predicted, as in scikit-learn"""
    counts = zip(*_class_counts(confusion), strict=True)
    f1 = [2 * hit / (there + said) for hit, there, said in counts if there + said]
    return sum(f1) / len(f1)


@metric(better="lower")
def train_val_gap(record: Mapping[str, Any]) -> float:
    """train/accuracy - val/accuracy: what does not carry over to new samples"""
    return float(record["train/accuracy"] - record["val/accuracy"])


# Layers, whole runs, goals

LAYERS = "layers/LAYER/"

STATISTICS: tuple[tuple[str, Better | None, str], ...] = (
    ("mean", None, "mean of the layer's output on the probe batch"),
    ("variance", None, "variance of the layer's output on the probe batch"),
    ("dead", "lower", "share of an activation's units that are 0 for every sample"),
    ("sparsity", None, "share of an activation's outputs up to 1 % of their root mean square"),
    ("saturated", "lower", "share of a bounded activation's outputs within 1 % of its range from a bound"),
    ("gradient_norm", None, "norm of the weight's gradient on the probe batch"),
    ("update_ratio", None, "norm of the epoch's last update of the weight over the norm of the weight"),
    ("near_zero", None, "share of the weights up to 1 % of their root mean square"),
    ("positive", None, "share of the weights above 0"),
    ("unit_norm_spread", None, "standard deviation over mean of the norms of the units' weight vectors"),
)

_add(
    *(Metric(f"{LAYERS}{name}", "layer", better, says) for name, better, says in STATISTICS),
    Metric("seconds", "run", "lower", "seconds of training, validation and checkpoints included"),
    Metric("samples_per_second", "run", "higher", "training samples per second of the training epochs"),
    Metric("peak_memory_mb", "run", "lower", "largest memory: of the device on a GPU, else of the process"),
    Metric("size_mb", "run", "lower", "size of the net's parameters and buffers"),
    Metric("parameters", "run", "lower", "number of parameters"),
    Metric("trained_parameters", "run", "lower", "number of parameters that train in the last epoch"),
    Metric("flops_per_sample", "run", "lower", "floating-point operations of one sample's forward pass"),
    Metric("epochs_to:SCORE:VALUE", "goal", "lower", "the first epoch whose score is VALUE or better"),
    Metric(
        "seconds_to:SCORE:VALUE",
        "goal",
        "lower",
        "seconds of training up to the first epoch whose score is VALUE or better",
    ),
)
FIGURES = tuple(entry.name for entry in TABLE.values() if entry.source == "run")
OURS = frozenset(TABLE)


@dataclass(frozen=True)
class Goal:
    """A goal: epochs_to:SCORE:VALUE or seconds_to:SCORE:VALUE."""

    key: str  # of a record: epoch or seconds
    score: str
    value: float

    def reached(self, records: Iterable[Mapping[str, Any]], better: Better) -> float | None:
        """Returns the epoch, or the seconds, of the first record that reaches the value; None if none does."""
        for record in records:
            score = record.get(self.score)
            if isinstance(score, int | float) and (score >= self.value if better == "higher" else score <= self.value):
                found = record.get(self.key)
                return float(found) if isinstance(found, int | float) else None
        return None


def goal(name: str) -> Goal | None:
    """Returns the goal of `epochs_to:val/accuracy:0.95`; None for others. Raises ConfigError if it is incomplete."""
    key = {"epochs_to": "epoch", "seconds_to": "seconds"}.get(name.partition(":")[0])
    if key is None:
        return None
    score, _, value = name.partition(":")[2].rpartition(":")
    try:
        found = Goal(key, score, float(value))
    except ValueError:
        found = Goal(key, "", math.nan)
    if not found.score or not math.isfinite(found.value):
        raise ConfigError(f"metric: {name!r} lacks a score or its value; write {name.partition(':')[0]}:val/loss:0.1")
    return found


# Readers of the table


def of_confusion(confusion: Any) -> dict[str, float]:
    """Returns each score computed from a split's counts, by name without the split; `confusion` as in INPUTS.

    Raises ConfigError if a metric of the user's fails.
    """
    counts = confusion.view()
    counts.flags.writeable = False  # one metric must not change the next one's input
    return {entry.name: _computed(entry, counts) for entry in TABLE.values() if entry.source == "confusion"}


def of_record(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns each metric computed from an epoch's other numbers. Raises ConfigError as of_confusion does."""
    numbers = MappingProxyType(record)
    return {entry.name: _computed(entry, numbers) for entry in TABLE.values() if entry.source == "record"}


def _computed(entry: Metric, given: Any) -> float:
    import numpy

    assert entry.function is not None
    try:
        with numpy.errstate(all="ignore"):  # numpy warns of 0 / 0 where Python raises
            value = entry.function(given)
    except ArithmeticError:  # not defined for these predictions
        return math.nan
    except Exception as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"metric {entry.name}: raised {type(error).__name__}: {text}{_fix(entry)}") from error
    try:
        number = float(value) if isinstance(value, SupportsFloat) and not isinstance(value, bool) else None
    except (TypeError, ValueError):  # an array of several numbers
        number = None
    if number is None:
        raise ConfigError(f"metric {entry.name}: returned {repr(value)[:60]}, which is not a number{_fix(entry)}")
    return number if math.isfinite(number) else math.nan


def _fix(entry: Metric) -> str:
    file = inspect.getsourcefile(entry.function) if entry.function is not None else None
    return f"; fix it in {file}"


def names(*sources: Source) -> list[str]:
    """Returns the names of the metrics computed from these, the validation split's first."""
    entries = [entry for entry in TABLE.values() if entry.source in sources]
    found = [name for entry in entries for name in entry.names]
    return sorted(found, key=lambda name: ("/" not in name, name.startswith("train/")))


def score_names() -> list[str]:
    """Returns the names of which each epoch has one number; only these can decide or be watched."""
    return names("loop", "confusion", "record")


def is_score(name: str) -> bool:
    """Returns whether a record's key is a score of the epoch, even of a metric no longer in the table."""
    return ("/" in name and not name.startswith("layers/")) or (name in TABLE and TABLE[name].source == "record")


def is_of_run(name: str) -> bool:
    """Returns whether it is one number per run, which epochs do not have."""
    return name in FIGURES or name.partition(":")[0] in ("epochs_to", "seconds_to")


def users() -> dict[str, Better]:
    """Returns the user's own metrics, each with its direction."""
    return {
        name: entry.better for key, entry in TABLE.items() if key not in OURS and entry.better for name in entry.names
    }


def listing() -> dict[str, Metric]:
    """Returns every name with its entry: scores of epochs, statistics of layers, numbers of runs."""
    entries = {name: entry for entry in TABLE.values() for name in entry.names}
    return {name: entries[name] for name in [*score_names(), *names("layer", "run", "goal")]}


def entry_of(name: str) -> Metric | None:
    """Returns the entry of a name as users type it: layers/hidden1.layer/dead, epochs_to:val/accuracy:0.95."""
    if name.startswith("layers/"):
        name = LAYERS + name.rpartition("/")[2]
    name = f"{name.partition(':')[0]}:SCORE:VALUE" if ":" in name else name
    return next((entry for entry in TABLE.values() if name in entry.names), None)


def better(name: str) -> Better | None:
    """Returns which way is better; None if neither is, or if the name is not in the table."""
    found = entry_of(name)
    return found.better if found is not None else None


def direction(name: str) -> Better:
    """Returns which way is better of a deciding metric; of an unknown name, lower if it is a loss."""
    return better(name) or ("lower" if name.endswith("loss") else "higher")


def is_better(metric: str, new: float, old: float, min_delta: float = 0.0) -> bool:
    """Returns whether a score improves on another by more than min_delta; NaN never does, anything improves on NaN."""
    return improves(direction(metric), new, old, min_delta)


def improves(better: Better, new: float, old: float, min_delta: float = 0.0) -> bool:
    """Returns the same as is_better, for a direction."""
    if math.isnan(new) or math.isnan(old):
        return math.isnan(old) and not math.isnan(new)
    return new > old + min_delta if better == "higher" else new < old - min_delta


class PatienceCounter:
    """Counts the epochs without improvement; its memory is a plain mapping, saved with the checkpoint."""

    def __init__(self, metric: str, min_delta: float) -> None:
        self.metric = metric
        self.min_delta = min_delta
        self.state: dict[str, float] = {"best": math.nan, "waited": 0}

    def epochs_without(self, metrics: Mapping[str, float]) -> int:
        """Takes an epoch's metrics; returns the number of epochs since the best."""
        if is_better(self.metric, metrics[self.metric], self.state["best"], self.min_delta):
            self.state["best"], self.state["waited"] = metrics[self.metric], 0
        else:
            self.state["waited"] += 1
        return int(self.state["waited"])
