"""The `dltips` command. No other module imports this one, and it never imports torch."""

from __future__ import annotations

import os
import sys

from dltips import __version__
from dltips.commands import verbs
from dltips.exit_codes import EXIT_OK, fail

HELP = """\
dltips: deep-learning tips as switches, and each switch as evidence

  dltips train +recipe=quickstart                              watch a small net learn real data
  dltips train +recipe=quickstart init=xavier activation=tanh  the same with another init and activation
  dltips train data=fashion_mnist model=cnn 'augmentation=[flip,crop]' epochs=8

verbs:
{verbs}

`dltips VERB --help` says more about one. Keys and options are Hydra's: FAMILY=OPTION, FAMILY.KNOB=VALUE.
"""


def command() -> None:
    """The shell's entry point: runs `main` and ends the process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the calling process
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    code = main()
    if "torch" in sys.modules and threads_are_over():
        verbs.leave(code)
    sys.exit(code)


def threads_are_over() -> bool:
    """Returns whether no other thread is left for Python to wait for."""
    import threading

    return all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate())


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _print(HELP.format(verbs="\n".join(f"  {verb:<12}{text}" for verb, text in verbs.VERBS.items())))
    if arguments[0] in ("-V", "--version"):
        return _print(f"dltips {__version__}\n")
    verb, *rest = arguments
    if verb not in verbs.VERBS:
        import difflib

        close = difflib.get_close_matches(verb, verbs.VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(verbs.VERBS)}"
        return fail(f"{verb!r} is not a verb; {hint}")
    return verbs.run(verb, rest)


def _print(text: str) -> int:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # `dltips --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK
