"""argparse's errors as ours."""

import pytest

from dltips.commands.arguments import Parser
from dltips.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "^dltips cat: .*recipe.*; see dltips cat --help$"),
        (["a", "--port", "x"], "^dltips cat: .*--port.*'x'.*; see dltips cat --help$"),
        (["a", "--nosuch"], "^dltips cat: .*--nosuch; see dltips cat --help$"),
    ],
)
def test_a_wrong_argument_is_one_line_with_where_help_is(arguments: list[str], message: str) -> None:
    parser = Parser(prog="dltips cat")
    parser.add_argument("recipe")
    parser.add_argument("--port", type=int)
    with pytest.raises(ConfigError, match=message):
        parser.parse_args(arguments)
