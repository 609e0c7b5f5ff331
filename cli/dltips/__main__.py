"""python -m dltips."""

from dltips.main import command

command()
