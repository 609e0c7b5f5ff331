"""Prints a config instead of running it: dltips train --help, --cfg, --info."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omegaconf import Container, OmegaConf

from dltips import paths
from dltips.catalog.registry import FAMILIES
from dltips.config.composition import compose, compose_with_hydras, errors_of_one_line, request
from dltips.config.option_files import PRIMARY, options, read
from dltips.config.overrides import parse
from dltips.config.recipes import GROUP
from dltips.errors import ConfigError, suggest

INFO = ("all", "config", "defaults", "searchpath")  # all and config are the same here

HELP = """\
dltips train: one run; with -m a grid of runs

  dltips train +recipe=quickstart
  dltips train +recipe=quickstart optimizer=adam optimizer.lr=0.003
  dltips train 'regularization=[l2,dropout]' model.widths='[512,512]' regularization.dropout.p=0.3
  dltips train -m +recipe=quickstart init=he,xavier 'seed=range(5)'
  dltips train resume=last
  dltips train finetune=auto finetune.source=RUN --compare=60

families (choose with FAMILY=OPTION, `dltips ls FAMILY` lists the options):

{families}

this run's config (override with KEY=VALUE; --cfg job prints it after your overrides):

{config}"""


def help_of(overrides: Sequence[str]) -> str:
    """Returns the help of dltips train, with the config after the overrides. Raises ConfigError."""
    families = "\n".join(f"{family}: {', '.join(options(family))}" for family in sorted(FAMILIES))
    return HELP.format(families=families, config=OmegaConf.to_yaml(compose(overrides)[0]))


def config_of(overrides: Sequence[str], kind: str, package: str | None, *, resolve: bool) -> str:
    """Returns the config as YAML: of a job, Hydra's own, or both; of a package only that part. Raises ConfigError."""
    config = compose_with_hydras(overrides)
    for key in list(config):
        if kind not in ("all", "hydra" if key == "hydra" else "job"):
            del config[key]
    with errors_of_one_line():
        part = config if package in (None, "_global_") else OmegaConf.select(config, str(package))
        if part is None:
            raise ConfigError(f"--package: {package!r} is not in the config{suggest(str(package), map(str, config))}")
        if not isinstance(part, Container):
            return f"{part}\n"
        if resolve:
            OmegaConf.resolve(part)
        header = f"# @package {package}\n" if package is not None else ""
        return header + OmegaConf.to_yaml(part)


def info_of(overrides: Sequence[str], kind: str) -> str:
    """Returns the sources of a config. Raises ConfigError."""
    searchpath = _section("Config search path", _table(["Provider", "Search path"], [*_searchpath()]))
    defaults = _section(
        "Defaults List", _table(["Config path", "Package", "_self_", "Parent"], [*_defaults(overrides)])
    )
    if kind in ("searchpath", "defaults"):
        return {"searchpath": searchpath, "defaults": defaults}[kind]
    return searchpath + defaults + _section("Config", OmegaConf.to_yaml(compose(overrides)[0]))


def _searchpath() -> Iterator[tuple[str, ...]]:
    """Yields the folders of options, then of recipes; the first that has a file wins."""
    ours, *users = paths.configs()
    yield "main", f"file://{ours}"
    for folder in users:
        yield "dltips-user", f"file://{folder}"
    for folder in paths.recipes():
        yield "dltips-recipes", f"file://{folder}"


def _defaults(overrides: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the files that make up the config; later ones override earlier ones."""
    asked = request(parse(overrides))
    for item in read(PRIMARY)["defaults"]:
        if item == "_self_":
            yield PRIMARY, "", "True", "<root>"
        elif isinstance(item, str):
            yield item, item.split("/")[0], "False", PRIMARY
        elif (family := next(iter(item))) in FAMILIES:
            choice = asked.choices[family]
            for name in [choice] if isinstance(choice, str) else choice:
                yield f"{family}/{name}", family, "False", PRIMARY
    for part in asked.recipes:
        parent = next((f"{GROUP}/{other.name}" for other in asked.recipes if part.name in other.includes), PRIMARY)
        yield f"{GROUP}/{part.name}", "", "True", parent


def _section(title: str, text: str) -> str:
    return f"\n{title}\n{'*' * len(title)}\n{text}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, *rows)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:], rule]) + "\n"
