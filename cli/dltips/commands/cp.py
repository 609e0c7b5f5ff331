"""dltips cp RECIPE DEST: copies a recipe, to be changed."""

from __future__ import annotations

from pathlib import Path

from dltips.commands.arguments import Parser
from dltips.config import recipes
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips cp", description="Copy a recipe, to make it your own.")
    parser.add_argument("recipe", help="a name; `dltips ls recipes` lists them")
    parser.add_argument("dest", help="a new name (lands in ./recipes), or a path that ends in .yaml")
    chosen = parser.parse_args(arguments)
    text = recipes.text_of(chosen.recipe)
    if chosen.dest.endswith(".yaml"):
        target = Path(chosen.dest).expanduser()
    elif recipes.NAME.fullmatch(chosen.dest):
        target = Path("recipes") / f"{chosen.dest}.yaml"
    else:
        raise ConfigError(
            f"cp: {chosen.dest!r} is not a recipe name (letters, digits, - and _); or give a path to a .yaml file"
        )
    if target.exists():
        raise ConfigError(f"cp: {target} exists already; choose another name, or remove it first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # exclusive: two processes cannot overwrite each other's file
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"cp: {target} cannot be written ({error.strerror})") from error
    print(target)
    if target.is_relative_to("recipes"):
        print(f"run it with: dltips train +recipe={target.relative_to('recipes').with_suffix('').as_posix()}")
    return EXIT_OK
