"""dltips completion SHELL prints a script; the script calls `dltips completion --words LINE` for the next words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dltips import paths
from dltips.commands.arguments import Parser
from dltips.commands.verbs import VERBS
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK

BASH = """\
# dltips: add to ~/.bashrc:  eval "$(dltips completion bash)"
_dltips() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    # bash splits words at = and :, dltips does not: what it has split off already must not be repeated
    local word="${line##* }" cut=""
    case "$word" in *[=:]*) cut="${word%"${word##*[=:]}"}" ;; esac
    COMPREPLY=()
    local choice
    for choice in $(dltips completion --words "$line" 2>/dev/null); do
        COMPREPLY+=("${choice#"$cut"}")
    done
    case "${COMPREPLY[*]}" in *[=./]) compopt -o nospace 2>/dev/null ;; esac
}
complete -o default -F _dltips dltips
"""

ZSH = """\
#compdef dltips
# dltips: add to ~/.zshrc, after compinit:  eval "$(dltips completion zsh)"
_dltips() {
    local line="${LBUFFER}"
    local -a choices
    choices=("${(@f)$(dltips completion --words "$line" 2>/dev/null)}")
    if [[ -n "${choices[1]}" ]]; then
        compadd -U -Q -S '' -- "${choices[@]}"
    else
        _files
    fi
}
compdef _dltips dltips
"""

FISH = """\
# dltips: add to ~/.config/fish/config.fish:  dltips completion fish | source
function __dltips_words
    dltips completion --words (commandline --cut-at-cursor | string collect) 2>/dev/null
end
complete -c dltips -f -a '(__dltips_words)'
complete -c dltips -n '__fish_seen_subcommand_from evaluate predict cp' -F
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips completion", description="Print the completion script for a shell.")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("shell", nargs="?", choices=sorted(SCRIPTS))
    group.add_argument("--words", metavar="LINE", help="what may come next on a command line")
    chosen = parser.parse_args(arguments)
    print(SCRIPTS[chosen.shell], end="") if chosen.words is None else print("\n".join(words(chosen.words)))
    return EXIT_OK


def words(line: str) -> list[str]:
    """Returns the possible words at the end of a command line up to the cursor; it begins with `dltips`."""
    parts = line.split(" ")
    typed, word = [part for part in parts[1:-1] if part], parts[-1]
    if not typed:
        return _starting(word, VERBS)
    verb = typed[0]
    if verb in ("train", "sweep") and word.startswith(("metric=", "objective=")):
        key = word.partition("=")[0]
        return _starting(word, [f"{key}={name}" for name in _metrics(key)])
    if verb in ("train", "show"):
        return _train(typed[1:], word)
    choices: list[str] = []
    if typed[-1] == "--metric":
        return _starting(word, _metrics("--metric"))
    if verb in ("cat", "cp") and len(typed) == 1:
        choices = _recipes()
    elif verb == "ls" and len(typed) == 1:
        from dltips.commands.ls import WORDS

        choices = list(WORDS)
    elif verb == "explain" and len(typed) == 1:
        choices = _explained()
    elif verb in ("evaluate", "predict") and len(typed) == 1:
        choices = [str(path.parent) for path in paths.OUTPUTS.glob("*/summary.json")]
    elif verb == "completion":
        choices = list(SCRIPTS)
    return _starting(word, choices)


def _recipes() -> list[str]:
    from dltips.config import recipes

    return recipes.names()


def _metrics(key: str) -> list[str]:
    """Returns the metrics that `metric=`, `objective=` or `--metric` takes, except names with a part to fill in."""
    from dltips.catalog import source_reader

    known = {name: entry.source for name, entry in source_reader.metrics().items() if entry.source != "layer"}
    return [name for name, source in known.items() if source != "goal" and (source != "run" or key != "metric")]


def _explained() -> list[str]:
    """Returns options with and without their family, families, and the names of the articles' tips."""
    from dltips.catalog import article_tips, source_reader
    from dltips.catalog.registry import FAMILIES

    switches = list(source_reader.tips())
    return list(
        {
            *switches,
            *FAMILIES,
            *(switch.partition("=")[2] for switch in switches),
            *(row.id for row in article_tips.ROWS),
        }
    )


def _starting(word: str, choices: Iterable[str]) -> list[str]:
    return sorted(choice for choice in choices if choice.startswith(word))


def _train(typed: list[str], word: str) -> list[str]:
    """Returns families, options and keys; behind KEY= its present value; recipes and runs."""
    plain = word.removeprefix("+")
    if plain.startswith("recipe="):
        prefix = word[: len(word) - len(plain)] + "recipe="
        return _starting(word, [prefix + name for name in _recipes()])
    if word.startswith("resume="):
        runs = [str(path.parent) for path in paths.OUTPUTS.glob("*/config.yaml")]
        return _starting(word, ["resume=last", *(f"resume={run}" for run in runs)])
    overrides = [each for each in typed if "=" in each and not each.startswith("-")]
    try:  # an unfinished line may be invalid: it has no completions then
        key, equals, _ = word.partition("=")
        offered = _of_key(overrides, key) if equals else _keys(overrides, word)
    except ConfigError:
        return []
    return _starting(word, [*offered, *(["+recipe=", "recipe="] if "recipe".startswith(plain) else [])])


def _of_key(overrides: list[str], key: str) -> list[str]:
    """Returns the completions behind KEY=: a family's options, or the present value. Raises ConfigError."""
    from dltips.catalog.registry import FAMILIES
    from dltips.config.composition import compose
    from dltips.config.option_files import options
    from dltips.config.plain import leaves, to_plain

    if key in FAMILIES:
        return [f"{key}={option}" for option in options(key)]
    value = dict(leaves(to_plain(compose(overrides)[0]))).get(key)
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}"] if value not in (None, [], {}) else []


def _keys(overrides: list[str], word: str) -> list[str]:
    """Returns the keys that continue the word, up to the next dot. Raises ConfigError."""
    from dltips.config.checks import knobs_of_choice
    from dltips.config.composition import request
    from dltips.config.option_files import primary_knobs
    from dltips.config.overrides import parse

    choices = request(parse(overrides), one_run=False).choices
    knobs = {family: knobs_of_choice(family, choice) for family, choice in choices.items()}
    tree: Any = primary_knobs() | {family: inside for family, inside in knobs.items() if inside}
    above = word.rpartition(".")[0]
    for part in above.split(".") if above else []:
        tree = tree.get(part) if isinstance(tree, dict) else None
    if not isinstance(tree, dict):
        return []
    prefix = f"{above}." if above else ""
    found = [f"{prefix}{key}{'.' if isinstance(value, dict) else '='}" for key, value in tree.items()]
    return found if above else [*found, *(f"{family}=" for family in choices)]
