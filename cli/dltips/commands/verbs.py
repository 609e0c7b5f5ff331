"""The verbs of `dltips`, imported when called; their end after an error, ctrl-C or a closed pipe. Imports no torch."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from typing import NoReturn

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


def run(verb: str, arguments: list[str]) -> int:
    """Runs one verb; returns the exit code. Prints an error of the user's as one line, raises an internal one."""
    # importing torch makes no garbage: without collections it takes 16 % less
    collected = gc.isenabled()
    gc.disable()
    try:
        code: int = importlib.import_module(f"dltips.commands.{verb}").run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # the reader has closed the pipe (`dltips ls | head`), which is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        from dltips.errors import ConfigError

        if _interrupted(error):
            return fail("interrupted", EXIT_INTERRUPTED)
        if isinstance(error, ConfigError):
            return fail(str(error))
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # stdout is a file, too
            return fail("no space left on the device", EXIT_INTERNAL)
        raise
    finally:
        gc.unfreeze()
        if collected:
            gc.enable()


def _interrupted(error: BaseException | None) -> bool:
    """Returns whether a ctrl-C caused the error: code interrupted halfway, such as OmegaConf's, may fail later."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def leave(code: int) -> NoReturn:
    """Ends the process after the atexit functions, without torch's teardown.

    That takes 0.6 s, and aborts about once in 60 times while a process group has lost a member.
    """
    import atexit
    import signal

    from dltips.signals import install

    install(signal.SIG_IGN, (signal.SIGINT,))  # the command has ended
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
