"""The `dltips` command: one table of verbs, each imported only when it is called. Imports no torch."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys

from dltips import __version__
from dltips.exit_codes import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, fail

VERBS = {
    "train": "train a net: one run, or a grid of runs with -m",
    "sweep": "search for hyperparameters: random, TPE, QMC, CMA-ES, with pruning; resumable, many workers",
    "evaluate": "test-set loss and accuracy of a run, per class, with the confusion matrix",
    "predict": "the likeliest classes of new images, npz and csv files, or sounds",
    "compare": "runs side by side: means over seeds, intervals, differences with their p values",
    "diff": "the settings in which two runs differ",
    "board": "TensorBoard on the runs of a folder, with means and intervals over seeds",
    "show": "a picture of training samples before and after their augmentations",
    "ls": "list families, the options of a family, all tips, the recipes, or the metrics",
    "explain": "a tip's card: what it does, when it helps, formula, source, costs, knobs",
    "cat": "print a recipe",
    "cp": "copy a recipe, to make it your own",
    "doctor": "what this machine and installation can do",
    "completion": "print the completion script for bash, zsh or fish",
}

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
    """What the shell calls: `main`, and the end of the process."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    code = main()
    if "torch" in sys.modules:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """End at once: to take everything apart, module by module, takes 0.6 s beside torch. Not while a thread is left."""
    import atexit
    import signal
    import threading

    if threading.active_count() == 1:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # what imports make is no garbage: without looking for some, importing torch takes 16 % less
    collected = gc.isenabled()
    gc.disable()
    try:
        code = _main(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # whoever read us has closed the pipe (`dltips ls | head`): no error of anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        if _interrupted(error):
            return fail("interrupted", EXIT_INTERRUPTED)
        if type(error).__name__ == "ConfigError":
            return fail(str(error))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # stdout is a file, too
            return fail("no space left on the device", EXIT_INTERNAL)
        raise
    finally:
        gc.unfreeze()
        if collected:
            gc.enable()


def _interrupted(error: BaseException | None) -> bool:
    """Whether it came of a ctrl-C: what is left half-done, OmegaConf's flags for one, may fail on the way out."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<12}{text}" for verb, text in VERBS.items())), end="")
        return EXIT_OK
    if arguments[0] in ("-V", "--version"):
        print(f"dltips {__version__}")
        return EXIT_OK
    verb, *rest = arguments
    if verb not in VERBS:
        import difflib

        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there is: {', '.join(VERBS)}"
        return fail(f"{verb!r} is no verb; {hint}")
    code: int = importlib.import_module(f"dltips.commands.{verb}").run(rest)
    return code
