"""dltips cat RECIPE."""

from __future__ import annotations

from dltips import recipe
from dltips.commands.arguments import Parser
from dltips.main import EXIT_OK


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips cat", description="Print a recipe as it is written.")
    parser.add_argument("recipe", help="a name; `dltips ls recipes` lists them")
    print(recipe.text_of(parser.parse_args(arguments).recipe), end="")
    return EXIT_OK
