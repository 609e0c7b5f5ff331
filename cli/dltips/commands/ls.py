"""dltips ls: families, the options of a family, recipes."""

from __future__ import annotations

import json

from dltips import catalog, paths
from dltips.commands.arguments import Parser
from dltips.main import EXIT_OK
from dltips.registry import FAMILIES, ConfigError, suggest, user_file


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips ls", description="List families, options and recipes.")
    parser.add_argument("what", nargs="?", help="a family, or `recipes`; nothing: everything")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    if chosen.what not in (None, "recipes", *FAMILIES):
        raise ConfigError(
            f"ls: {chosen.what!r} is neither a family nor `recipes`{suggest(chosen.what, [*FAMILIES, 'recipes'])}"
        )
    for module in paths.user_modules():
        user_file(module)
    wanted = (*FAMILIES, "recipes") if chosen.what is None else (chosen.what,)
    listing = {name: _recipes() if name == "recipes" else catalog.options(name) for name in wanted}
    if chosen.json:
        print(json.dumps(listing, indent=2))
        return EXIT_OK
    for name, options in listing.items():
        if chosen.what is None:
            print(f"\n{name}" if name == "recipes" else f"\n{name}=")
        width = max(map(len, options), default=0)
        for option, text in options.items():
            print(f"  {option:<{width}}  {text}".rstrip())
    return EXIT_OK


def _recipes() -> dict[str, str]:
    """Each recipe with the first line of its header."""
    from dltips import recipe

    found = {}
    for name in recipe.names():
        try:
            lines = recipe.text_of(name).splitlines()
        except ConfigError:
            lines = ["# cannot be read"]
        found[name] = next(
            (line.lstrip("# ") for line in lines if line.startswith("# ") and "@package" not in line), ""
        )
    return found
