"""dltips cat RECIPE."""

from __future__ import annotations

from dltips.commands.arguments import Parser
from dltips.config import recipes
from dltips.exit_codes import EXIT_OK


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips cat", description="Print a recipe as it is written.")
    parser.add_argument("recipe", help="a name; `dltips ls recipes` lists them")
    print(recipes.text_of(parser.parse_args(arguments).recipe), end="")
    return EXIT_OK
