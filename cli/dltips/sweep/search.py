"""`dltips sweep`: a search, frozen before it starts, joined or gone on with by whoever gives the same command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import URL

from dltips import paths
from dltips.main import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, fail
from dltips.metrics import Score
from dltips.overrides import parse, typed_keys
from dltips.registry import ConfigError
from dltips.sweep import crew, ending, samplers
from dltips.sweep import place as places
from dltips.sweep import space as spaces
from dltips.sweep.identity import this_worker
from dltips.sweep.loop import Loop
from dltips.sweep.objective import Runs
from dltips.sweep.settings import FREE, SearchSettings, direction, objectives, read, seconds, split
from dltips.sweep.space import Space
from dltips.sweep.storage import DatabaseGone, name_of, opened, shown, url_of
from dltips.sweep.study import Study, join, open_study
from dltips.sweep.trial import Surroundings
from dltips.train import folder
from dltips.train.check import Checker
from dltips.train.store import Store

KIND, BY_ITSELF = "search", "searched-"


@dataclass(frozen=True)
class Plan:
    """A search as it is frozen: plain data, the same for every worker of the study."""

    space: Space
    settings: SearchSettings
    objectives: tuple[str, ...]
    fixed: tuple[str, ...]  # the overrides that all trials share, as they were typed
    study: str  # its name in the database

    @property
    def directions(self) -> list[str]:
        return [direction(objective) for objective in self.objectives]

    @property
    def metric(self) -> str:
        return str(self.space.base["metric"])

    @property
    def typed(self) -> list[str]:
        """The keys that were set on the command line."""
        return [*typed_keys(list(self.fixed)), *(dimension.key for dimension in self.space.dimensions)]

    def to_json(self) -> dict[str, Any]:
        kept = {key: value for key, value in asdict(self.settings).items() if key not in FREE}
        return {
            "space": self.space.to_json(),
            "settings": kept,
            "objectives": list(self.objectives),
            "fixed": list(self.fixed),
            "study": self.study,
        }


def run(arguments: list[str]) -> int:
    """Search, report; the exit code. Errors: ConfigError, before the first trial."""
    own, overrides = split(arguments)
    settings = read(own)
    folder.check_writable()
    store = Store()
    if settings.resume is not None:
        place, plan = _reopened(settings, own, overrides)
    else:
        plan = _planned(settings, overrides, store)
        place = None
    try:
        return _searched(plan, place, "trials" in typed_keys(own), store)
    except DatabaseGone as error:
        return fail(str(error), EXIT_INTERNAL)


def _planned(settings: SearchSettings, overrides: Sequence[str], store: Store) -> Plan:
    """What the command asks for, every choice and end looked at. Errors: ConfigError."""
    space = spaces.resolve(overrides)
    names = objectives(settings)
    scores = [name for name in names if name in get_args(Score)]
    fixed = [str(each.input_line) for each in parse(list(overrides)) if not each.is_sweep_override()]
    typed = typed_keys(list(overrides))
    if scores and "metric" in typed and space.base["metric"] not in scores:
        raise ConfigError(
            f"metric: {space.base['metric']} is not among the objectives ({', '.join(names)}); leave it out"
        )
    base = {**space.base, "name": settings.name or space.base["name"]}
    if scores and space.base["metric"] not in scores:
        base["metric"] = scores[0]
        fixed.append(f"metric={scores[0]}")
    space = replace(space, base=base)
    checker = Checker(store)
    config = space.check(checker.content_hash)
    names = names or [config.settings.metric]
    for note in (*space.notes, *samplers.check(settings.sampler, space.distributions(), len(names))):
        say(note)
    plan = Plan(space, settings, tuple(names), tuple(fixed), "")
    return replace(plan, study=settings.name or BY_ITSELF + _identity(plan))


def _identity(plan: Plan) -> str:
    """Of all that two commands of one study share."""
    content = plan.to_json()
    base = {key: value for key, value in plan.space.base.items() if key not in spaces.IGNORED}
    content = {key: content[key] for key in ("settings", "objectives")} | {"base": base, "name": plan.settings.name}
    text = json.dumps([content, plan.space.to_json()["dimensions"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reopened(settings: SearchSettings, own: Sequence[str], overrides: Sequence[str]) -> tuple[Path, Plan]:
    """The search of a folder, with what may differ taken from the command line. Errors: ConfigError."""
    keys = typed_keys(list(own))
    fixed = [key for key in keys if key not in FREE or key == "name"]
    if overrides or fixed:
        raise ConfigError(
            f"resume: {(fixed or typed_keys(list(overrides)))[0]} is as the search has it; what may differ:"
            f" {', '.join(key for key in FREE if key not in ('name', 'resume'))}"
        )
    assert settings.resume is not None
    place = _last() if settings.resume == "last" else Path(settings.resume).expanduser()
    content = places.read(place)
    if content is None or content.get("kind") != KIND:
        why = "does not exist" if not place.exists() else "is not the folder of a search"
        raise ConfigError(f"resume: {settings.resume} {why}; give one that dltips sweep has made, or last")
    plan = _from_json(content, settings, str(place))
    if content.get("storage") is not None and settings.storage is None:
        raise ConfigError(f"resume: the study of {place} lies in {content['storage']}; give its storage=ADDRESS")
    return place, plan


def _last() -> Path:
    found = [file.parent for file in sorted(paths.OUTPUTS.glob(f"*/{places.SWEEP}"))]
    searches = [place for place in found if (places.read(place) or {}).get("kind") == KIND]
    if not searches:
        raise ConfigError(f"resume: last finds no search under {paths.OUTPUTS.absolute()}")
    return searches[-1]


def _from_json(content: Mapping[str, Any], settings: SearchSettings, where: str) -> Plan:
    """Errors: ConfigError for what no search has written."""
    try:
        stored = content[KIND]
        own = {key: value for key, value in stored["settings"].items() if key in SearchSettings.__dataclass_fields__}
        merged = replace(settings, **own, name=content["name"])
        space = spaces.from_json(stored["space"])
        return Plan(space, merged, tuple(stored["objectives"]), tuple(stored["fixed"]), stored["study"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"resume: the search of {where} cannot be read ({error}); start another") from error


def _searched(plan: Plan, place: Path | None, more: bool, store: Store) -> int:
    """Make or join the study, run it, report it; the exit code."""
    settings = plan.settings
    with contextlib.ExitStack() as stack:
        if settings.storage is None:
            stack.enter_context(_one_command_at_a_time())
            place = place or _found(plan) or places.make(_identity(plan), settings.name)
        url = url_of(settings.storage, place or Path())
        storage = stack.enter_context(opened(url, settings.patience))
        made = join(storage, plan.study, plan.directions, settings.trials, _content(plan, place))
        study = open_study(storage, plan.study)
        plan, place = _agreed(plan, study, url, place)
        count = study.grow(settings.trials if more else 0)
        before = ending.done(study)
        if places.read(place) is None:
            places.write(place, study.content() or {})
    if made:
        say(f"{place}: {count} trials, sampler {settings.sampler}, pruner {settings.pruner}")
    else:
        say(f"going on with {place}: {before} of {count} trials are done")
        if more and count > settings.trials:
            say(f"trials: there are {count} already, of which none is taken away")
    limit = seconds(settings.timeout)
    deadline = time.monotonic() + limit if limit is not None else None
    work = Work(plan, place, url, deadline, count)
    if settings.workers > 1:
        import torch

        torch.set_num_threads(1)  # threads do not survive a fork
        work.store = store if not torch.cuda.is_available() else None
        code = crew.run(settings.workers, work, say)
    else:
        work.store = store
        with _stopped_by_sigterm():
            code = work(0)
    if code not in (EXIT_OK, EXIT_INTERRUPTED):
        return code
    with opened(url, settings.patience) as storage:
        study = open_study(storage, plan.study)
        study.requeue_dead(this_worker(), None)
        return ending.report(plan, place, study, interrupted=code == EXIT_INTERRUPTED)


def _content(plan: Plan, place: Path | None) -> dict[str, Any]:
    settings = plan.settings
    made = place.name if place is not None else folder.unique_name(settings.name, _identity(plan)[:6])
    return {
        "kind": KIND,
        "name": settings.name,
        "command": places.command(),
        "metric": plan.metric,
        "varied": [dimension.key for dimension in plan.space.dimensions],
        "identity": _identity(plan),
        "trials": [],
        "folder": made,
        "storage": shown(settings.storage),
        KIND: plan.to_json(),
    }


def _found(plan: Plan) -> Path | None:
    """The folder of the same search, or of one of the same name, which is then compared."""
    name = plan.settings.name
    if name is None:
        place = places.find(_identity(plan))
        return place if place is not None and (places.read(place) or {}).get("storage") is None else None
    for file in sorted(paths.OUTPUTS.glob(f"*/{places.SWEEP}"), reverse=True):
        content = places.read(file.parent) or {}
        if content.get("kind") == KIND and content.get("name") == name and content.get("storage") is None:
            return file.parent
    return None


def _agreed(plan: Plan, study: Study, url: URL, place: Path | None) -> tuple[Plan, Path]:
    """The study's own plan, which ours must agree with, and its folder. Errors: ConfigError, with what differs."""
    content = study.content()
    if content is None:
        raise ConfigError(
            f"name: {name_of(url)} has a study {plan.study} that another program made; write name=ANOTHER"
        )
    theirs = _from_json(content, plan.settings, name_of(url))
    if plan.space is not theirs.space:
        mine, stored = plan.to_json(), theirs.to_json()
        differ = theirs.space.differences(plan.space)
        differ += [
            f"{key}={stored['settings'][key]} (not {value})"
            for key, value in mine["settings"].items()
            if key != "objective" and stored["settings"][key] != value
        ]
        if theirs.objectives != plan.objectives:
            differ.append(f"objective={list(theirs.objectives)} (not {list(plan.objectives)})")
        if differ:
            raise ConfigError(
                f"name: the study {plan.study} has {', '.join(differ[:4])}{' and more' if len(differ) > 4 else ''};"
                " give the same command, or name=ANOTHER"
            )
    place = place or paths.OUTPUTS / str(content["folder"]).replace("/", "-")
    with contextlib.suppress(FileExistsError):
        folder.make(None, place) if not place.exists() else None
    return theirs, place


@dataclass
class Work:
    """What a worker does, in this process or in another one."""

    plan: Plan
    place: Path
    url: URL
    deadline: float | None
    count: int
    store: Store | None = None

    def __call__(self, slot: int) -> int:
        """Run trials until none is left; the exit code."""
        if self.plan.settings.workers > 1:
            signal.signal(signal.SIGTERM, _interrupt)
        try:
            with opened(self.url, self.plan.settings.patience) as storage:
                study = open_study(storage, self.plan.study)
                ended = self.loop(storage, study).run(self.objective(study, slot))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except DatabaseGone as error:
            return fail(str(error), EXIT_INTERNAL)
        except ConfigError as error:
            return fail(str(error), EXIT_USAGE)
        return EXIT_INTERRUPTED if ended == "interrupted" else EXIT_OK

    def loop(self, storage: Any, study: Study) -> Loop:
        settings = self.plan.settings
        epochs = self.plan.space.most("epochs")
        pruner = samplers.make_pruner(settings.pruner, epochs, settings.reduction, settings.min_epochs)
        told = ending.Progress(self.plan, study, self.count)
        return Loop(
            storage=storage,
            study=study,
            space=self.plan.space,
            sampler=settings.sampler,
            pruner=pruner,
            seed=int(self.plan.space.base["seed"]),
            say=say,
            patience=settings.patience,
            grace=settings.grace,
            deadline=self.deadline,
            after=told,
        )

    def objective(self, study: Study, slot: int) -> Runs:
        plan = self.plan
        return Runs(
            space=plan.space,
            objectives=plan.objectives,
            directions=plan.directions,
            seeds=plan.settings.seeds,
            prunes=plan.settings.pruner != "none",
            place=self.place,
            best=lambda: ending.best_scores(plan, study),
            slot=slot,
            surroundings=Surroundings(plan.typed, store=self.store or Store()),
        )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM between two epochs is a ctrl-C; during them the run itself listens."""
    theirs = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, theirs)


@contextlib.contextmanager
def _one_command_at_a_time() -> Iterator[None]:
    """Within, no other command makes a sweep's folder: two that are given at once share one."""
    import fcntl

    paths.OUTPUTS.mkdir(exist_ok=True)
    handle = os.open(paths.OUTPUTS / ".search.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
