"""dltips completion SHELL prints a script; the script asks `dltips completion --words LINE` what could come next."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable

from dltips import paths
from dltips.commands.arguments import Parser
from dltips.commands.verbs import VERBS
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
    """The words that may stand at the end of a command line up to the cursor, `dltips` at its start."""
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
    """The metrics that `metric=`, `objective=` or `--metric` takes, without those whose name has a part to fill in."""
    from dltips.catalog import descriptions

    known = {name: entry.source for name, entry in descriptions.metrics().items() if entry.source != "layer"}
    return [name for name, source in known.items() if source != "goal" and (source != "run" or key != "metric")]


def _explained() -> list[str]:
    """Options with and without their family, families, and the names of the articles' tips."""
    from dltips.catalog import claims, descriptions
    from dltips.catalog.registry import FAMILIES

    switches = list(descriptions.tips())
    return list(
        {*switches, *FAMILIES, *(switch.partition("=")[2] for switch in switches), *(row.id for row in claims.ROWS)}
    )


def _starting(word: str, choices: Iterable[str]) -> list[str]:
    return sorted(choice for choice in choices if choice.startswith(word))


def _train(typed: list[str], word: str) -> list[str]:
    """Hydra's own completion of groups, options and keys; and recipes and runs, which it does not know about."""
    plain = word.removeprefix("+")
    if plain.startswith("recipe="):
        prefix = word[: len(word) - len(plain)] + "recipe="
        return _starting(word, [prefix + name for name in _recipes()])
    if word.startswith("resume="):
        runs = [str(path.parent) for path in paths.OUTPUTS.glob("*/config.yaml")]
        return _starting(word, ["resume=last", *(f"resume={run}" for run in runs)])
    from hydra import version
    from hydra._internal.utils import create_config_search_path
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin
    from hydra.types import RunMode
    from omegaconf import ListConfig, OmegaConf

    from dltips.config.composition import Loader, installed

    version.setbase("1.3")
    with installed(), contextlib.redirect_stderr(io.StringIO()):
        loader = Loader(create_config_search_path(f"file://{paths.shipped('configs')}"))
        try:
            found = DefaultCompletionPlugin(loader)._query("config", " ".join([*typed, word]))
            config = loader.load_configuration("config", typed, RunMode.MULTIRUN)
        except Exception:  # an unfinished line need not compose: there is nothing to offer then
            return []
    # Hydra offers a list's elements, an option's own name, Hydra's keys, and what may be appended: none is of use here
    offered = {
        f"{name[:-1]}=" if isinstance(OmegaConf.select(config, name[:-1]), ListConfig) else name for name in found
    }
    offered = {
        name for name in offered if not name.startswith(("hydra", "+")) and ".name=" not in name and "=_" not in name
    }
    return _starting(word, offered | ({"+recipe=", "recipe="} if "recipe".startswith(plain) else set()))
