"""`dltips sweep`: runs a search, frozen before it starts; the same command joins or resumes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL

from dltips import paths
from dltips.config.overrides import parse, typed_keys
from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, fail
from dltips.feed.dataset_cache import DatasetCache
from dltips.files import locked
from dltips.metrics import is_score
from dltips.runs import folder
from dltips.runs.code_version import code_hash
from dltips.runs.file_names import CONFIG, SWEEP
from dltips.sweep import sweep_folder as places
from dltips.sweep.preflight import Checker
from dltips.sweep.search import ranking, samplers, search_report, search_workers
from dltips.sweep.search import space as spaces
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.search_report import say
from dltips.sweep.search.search_settings import (
    MAY_DIFFER,
    MOST_TRIALS,
    SearchSettings,
    objectives,
    read,
    seconds,
    split,
)
from dltips.sweep.search.search_workers import Work
from dltips.sweep.search.storage import (
    DATABASE_FILE,
    DatabaseGone,
    in_one_line,
    name_of,
    opened,
    url_of,
    with_retry,
    without_password,
)
from dltips.sweep.search.study import join, open_study
from dltips.sweep.search.worker_id import this_worker
from dltips.train.finetuning import pretrained as pretrained_nets

Answer = TypeVar("Answer")

KIND, BY_ITSELF = "search", "searched-"
FOLDER = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}(-[\w.-]{1,60})?")  # names that folder.unique_name makes


def run(arguments: list[str]) -> int:
    """Searches and reports; returns the exit code. Raises ConfigError."""
    own, overrides = split(arguments)
    settings = read(own)
    folder.check_writable()
    store = DatasetCache()
    place: Path | None = None
    if settings.resume is not None:
        place, plan = _reopened(settings, own, overrides, store)
    else:
        plan = make_plan(settings, overrides, store)
    try:
        return run_plan(plan, place, "trials" in typed_keys(own), store)
    except DatabaseGone as error:
        return fail(str(error), EXIT_INTERNAL)


def make_plan(settings: SearchSettings, overrides: Sequence[str], store: DatasetCache) -> SearchPlan:
    """Returns the requested plan, every choice and end checked. Raises ConfigError."""
    space = spaces.resolve(overrides)
    names = objectives(settings)
    scores = [name for name in names if is_score(name)]
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
    origin = Origin(store)

    def look(config: Config) -> None:
        checker.content_hash(config)
        origin.look(config)

    config = space.check(look)
    samplers.check_pruner(settings.pruner, space.most("epochs"), settings.min_epochs)
    names = names or [config.settings.metric]
    for note in (*space.notes, *samplers.check(settings.sampler, space.distributions(), len(names))):
        say(note)
    plan = SearchPlan(space, settings, tuple(names), tuple(fixed), "", code_hash(), origin.hash)
    return replace(plan, study=settings.name or BY_ITSELF + _identity(plan))


def _identity(plan: SearchPlan) -> str:
    """Returns the hash of everything that two commands of one study share."""
    content = plan.to_json()
    base = {key: value for key, value in plan.space.base.items() if key not in spaces.WITHOUT_EFFECT}
    content = {key: content[key] for key in ("settings", "objectives")} | {"base": base, "name": plan.settings.name}
    text = json.dumps([content, plan.space.to_json()["dimensions"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Origin:
    """Computes the hash of the data and the initial weights of the runs."""

    def __init__(self, store: DatasetCache) -> None:
        self._store = store
        self._found: set[str] = set()

    def look(self, config: Config) -> None:
        """Adds a config's data and initial weights to the hash. Raises ConfigError."""
        pretrained = pretrained_nets.find(config)
        wanted = pretrained_nets.wanted(config, pretrained, None)
        _, splits, _ = self._store.samples(config, config.common["data"](), wanted)
        self._found.add(f"{splits.hash} {pretrained.hash if pretrained else ''}")

    @property
    def hash(self) -> str:
        return hashlib.sha256(repr(sorted(self._found)).encode()).hexdigest()[:16]


def _reopened(
    settings: SearchSettings, own: Sequence[str], overrides: Sequence[str], store: DatasetCache
) -> tuple[Path, SearchPlan]:
    """Returns a folder's search, with the permitted changes of the command line. Raises ConfigError."""
    keys = typed_keys(list(own))
    fixed = [key for key in keys if key not in MAY_DIFFER or key == "name"]
    if overrides or fixed:
        raise ConfigError(
            f"resume: {(fixed or typed_keys(list(overrides)))[0]} is as the search has it; what may differ:"
            f" {', '.join(key for key in MAY_DIFFER if key not in ('name', 'resume'))}"
        )
    assert settings.resume is not None
    place = _last() if settings.resume == "last" else Path(settings.resume).expanduser()
    content = places.read(place)
    if content is None or content.get("kind") != KIND:
        why = "does not exist" if not place.exists() else "is not the folder of a search"
        raise ConfigError(f"resume: {settings.resume} {why}; give one that dltips sweep has made, or last")
    plan = _from_json(content, settings, str(place))
    _refuse_another_storage(content.get("storage"), settings.storage, place)
    origin = Origin(store)
    plan.space.check(origin.look)
    return place, replace(plan, code=code_hash(), data=origin.hash)


def _refuse_another_storage(theirs: Any, given: str | None, place: Path) -> None:
    """Raises ConfigError if a search's study is not in the given storage."""
    if theirs is None and given is not None:
        raise ConfigError(f"storage: the study of {place} is its {DATABASE_FILE}, not in a server; leave storage out")
    if theirs is None:
        return
    if given is None:
        raise ConfigError(f"resume: the study of {place} lies in {theirs}; give its storage=ADDRESS")
    one, other = (url_of(str(address), place) for address in (theirs, given))
    if (one.host, one.query.get("host"), one.database) != (other.host, other.query.get("host"), other.database):
        raise ConfigError(
            f"storage: the study of {place} lies in {theirs}, not in {without_password(given)}; give that address"
        )


def _last() -> Path:
    found = [file.parent for file in sorted(paths.OUTPUTS.glob(f"*/{SWEEP}"))]
    searches = [place for place in found if (places.read(place) or {}).get("kind") == KIND]
    if not searches:
        raise ConfigError(f"resume: last finds no search under {paths.OUTPUTS.absolute()}")
    return searches[-1]


def _from_json(content: Mapping[str, Any], settings: SearchSettings, where: str) -> SearchPlan:
    """Returns the plan of a search's file. Raises ConfigError for content that no search has written."""
    try:
        stored = content[KIND]
        own = {key: value for key, value in stored["settings"].items() if key in SearchSettings.__dataclass_fields__}
        merged = replace(settings, **own, name=content["name"])
        space = spaces.from_json(stored["space"])
        origin = (str(stored.get("code", "")), str(stored.get("data", "")))
        return SearchPlan(space, merged, tuple(stored["objectives"]), tuple(stored["fixed"]), stored["study"], *origin)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"resume: the search of {where} cannot be read ({error}); start another") from error


def run_plan(plan: SearchPlan, place: Path | None, more: bool, store: DatasetCache) -> int:
    """Makes or joins the study, runs it, reports it; returns the exit code. Raises ConfigError, DatabaseGone."""
    settings = plan.settings
    with contextlib.ExitStack() as stack:
        if settings.storage is None:
            stack.enter_context(_one_command_at_a_time())
            place = place or _found(plan) or places.make(_identity(plan), settings.name)
        url = url_of(settings.storage, place or Path())
        plan, place, count = _begun(plan, url, place, more)
    limit = seconds(settings.timeout)
    deadline = time.monotonic() + limit if limit is not None else None
    work = Work(plan, place, url, deadline, count)
    if settings.workers > 1:
        import torch

        torch.set_num_threads(1)  # threads do not survive a fork
        work.store = store if not torch.cuda.is_available() else None
        code = search_workers.run(settings.workers, work, say)
    else:
        work.store = store
        code = work(0)
    if code not in (EXIT_OK, EXIT_INTERRUPTED):
        return code
    with in_one_line(url), opened(url, settings.patience) as database:
        study = open_study(database, plan.study)
        with_retry(lambda: study.requeue_dead(this_worker(), None), settings.patience, say)
        trials = with_retry(study.trials, settings.patience, say)
    return search_report.report(plan, place, trials, interrupted=code == EXIT_INTERRUPTED)


def _begun(plan: SearchPlan, url: URL, place: Path | None, more: bool) -> tuple[SearchPlan, Path, int]:
    """Returns the study, made or joined, its folder, and its number of trials; prints which. Raises ConfigError."""
    settings = plan.settings

    def ask(question: Callable[[], Answer]) -> Answer:
        return with_retry(question, settings.patience, say)

    before = places.read(place) if place is not None else None
    if before is not None:  # the folder's content, whatever has become of its database
        _refuse_differences(_from_json(before, settings, str(place)), plan)
    kept = before.get("count") if before is not None and not more else None
    count = kept if type(kept) is int and 0 < kept <= MOST_TRIALS else settings.trials
    with in_one_line(url), opened(url, settings.patience) as database:
        made = ask(lambda: join(database, plan.study, plan.directions, count, _content(plan, place)))
        study = ask(lambda: open_study(database, plan.study))
        plan, place = agreed_plan(plan, ask(study.content), url, place)
        lost = made and before is not None
        if lost:
            values = _left_behind(plan, place)
            count = ask(lambda: study.grow(max(values, default=-1) + 1))
            ask(lambda: study.preset(values))
        count = ask(lambda: study.grow(settings.trials if more else 0))
        done = ask(lambda: ranking.done(study))
        if (places.read(place) or {}).get("count") != count:
            places.write(place, {**(before or ask(study.content) or {}), "count": count})
    if lost:
        say(f"{place}: its study is gone, and begun again with {count} trials; what runs are there are taken over")
    elif made:
        say(f"{place}: {count} trials, sampler {settings.sampler}, pruner {settings.pruner}")
    else:
        say(f"going on with {place}: {done} of {count} trials are done")
        if more and count > settings.trials:
            say(f"trials: there are {count} already, of which none is taken away")
    return plan, place, count


def _left_behind(plan: SearchPlan, place: Path) -> dict[int, dict[str, Any]]:
    """Returns the values of the trials whose runs are in the folder, by number."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted(place.glob(f"[0-9]*-*/{CONFIG}")):
        number = file.parent.name.partition("-")[0]
        try:
            stored = folder.read_config(file.parent)
        except ConfigError:
            continue
        values = plan.space.values(stored)
        if number.isdecimal() and int(number) < MOST_TRIALS and values is not None:
            found.setdefault(int(number), values)
    return found


def _content(plan: SearchPlan, place: Path | None) -> dict[str, Any]:
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
        "storage": without_password(settings.storage),
        KIND: plan.to_json(),
    }


def _found(plan: SearchPlan) -> Path | None:
    """Returns the folder of the same search, or of one of the same name, to be compared."""
    name = plan.settings.name
    if name is None:
        place = places.find(_identity(plan))
        return place if place is not None and (places.read(place) or {}).get("storage") is None else None
    for file in sorted(paths.OUTPUTS.glob(f"*/{SWEEP}"), reverse=True):
        content = places.read(file.parent) or {}
        if content.get("kind") == KIND and content.get("name") == name and content.get("storage") is None:
            return file.parent
    return None


def agreed_plan(
    plan: SearchPlan, content: dict[str, Any] | None, url: URL, place: Path | None
) -> tuple[SearchPlan, Path]:
    """Returns the study's own plan, which must agree with ours, and its folder. Raises ConfigError otherwise."""
    if content is None:
        raise ConfigError(
            f"name: {name_of(url)} has a study {plan.study} that another program made; write name=ANOTHER"
        )
    theirs = _from_json(content, plan.settings, name_of(url))
    _refuse_differences(theirs, plan)
    if place is None:
        if not FOLDER.fullmatch(str(content.get("folder"))):
            raise ConfigError(f"name: the study {plan.study} of {name_of(url)} names no folder; write name=ANOTHER")
        place = paths.OUTPUTS / str(content["folder"])
    with contextlib.suppress(FileExistsError):
        folder.make(None, place) if not place.exists() else None
    return theirs, place


def _refuse_differences(theirs: SearchPlan, ours: SearchPlan) -> None:
    """Raises ConfigError if our trials would differ from the study's."""
    mine, stored = ours.to_json(), theirs.to_json()
    differ = theirs.space.differences(ours.space)
    differ += [
        f"{key}={stored['settings'][key]} (not {value})"
        for key, value in mine["settings"].items()
        if key != "objective" and stored["settings"][key] != value
    ]
    if theirs.objectives != ours.objectives:
        differ.append(f"objective={list(theirs.objectives)} (not {list(ours.objectives)})")
    name = theirs.study
    if differ:
        raise ConfigError(
            f"name: the study {name} has {', '.join(differ[:4])}{' and more' if len(differ) > 4 else ''};"
            " give the same command, or name=ANOTHER"
        )
    if theirs.data and theirs.data != ours.data:
        raise ConfigError(
            f"name: the study {name} has other data or weights than there are now; bring them back, or search anew"
            " with name=ANOTHER"
        )
    if theirs.code and theirs.code != ours.code:
        raise ConfigError(
            f"name: the study {name} was made with other code than runs now (dltips, your tips, torch or numpy); go"
            " back to that, or search anew with name=ANOTHER"
        )


@contextlib.contextmanager
def _one_command_at_a_time() -> Iterator[None]:
    """Locks out other commands that make a search's folder: two that start at once share one."""
    paths.OUTPUTS.mkdir(exist_ok=True)
    with locked(paths.OUTPUTS / ".search.lock", wait=-1):
        yield
