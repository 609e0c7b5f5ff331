"""dltips show: a picture of the augmentations."""

from __future__ import annotations

import sys
from pathlib import Path

from dltips import paths
from dltips.commands.arguments import Parser
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK

EPILOG = "Everything else is as for dltips train: dltips show +recipe=NAME 'augmentation=[crop,flip]' seed=1"
PNG = b"\x89PNG\r\n\x1a\n"


def run(arguments: list[str]) -> int:
    parser = Parser(
        prog="dltips show",
        description="Write a picture of training samples before and after their augmentations.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what dltips train would get")
    parser.add_argument("--out", type=Path, help=f"the picture (default: {paths.OUTPUTS / 'show.png'})")
    parser.add_argument("--count", type=int, metavar="N", help="samples, one per column (default: 8)")
    parser.add_argument("--draws", type=int, metavar="N", default=3, help="draws of all together (default: 3)")
    chosen = parser.parse_intermixed_args(arguments)
    for name in ("count", "draws"):
        if getattr(chosen, name) is not None and getattr(chosen, name) < 1:
            raise ConfigError(f"--{name}: {getattr(chosen, name)} is too few; it is at least 1")
    file = chosen.out or paths.OUTPUTS / "show.png"
    replaced = _check(file)
    from dltips.config.composition import compose

    composed, left_out = compose(chosen.overrides)
    from dltips.use.show import show  # late: it imports torch

    title, notes = show(composed, chosen.count, chosen.draws, file)
    for note in (*left_out, *notes):
        print(note, file=sys.stderr)
    print(f"{file}{' (replaced)' if replaced else ''}: {title}")
    return EXIT_OK


def _check(file: Path) -> bool:
    """Returns whether the picture exists already. Raises ConfigError if the file is not a picture."""
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--out: {file} does not end in .png; a picture is a PNG file")
    try:
        with file.open("rb") as opened:
            start = opened.read(len(PNG))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"--out: {file} cannot be written ({error.strerror})") from error
    if start != PNG:
        raise ConfigError(f"--out: {file} exists, and is not a picture; choose another name")
    return True
