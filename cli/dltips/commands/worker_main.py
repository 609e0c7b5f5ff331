"""`python -m dltips.commands.worker_main`: dltips train as one of several processes that parallel.spawn has started."""

from __future__ import annotations

import os
import sys

from dltips.commands import verbs
from dltips.exit_codes import EXIT_INTERNAL, EXIT_OK
from dltips.train.parallel.world import send_message


def run(arguments: list[str]) -> int:
    """Writes the exit code for the parent, and exits with 0: torchrun would kill ranks before they report."""
    rank = os.environ["RANK"]
    send_message(f"pid-{rank}", os.getpid())
    try:
        send_message(f"code-{rank}", verbs.run("train", arguments))
    except BaseException:
        send_message(f"code-{rank}", EXIT_INTERNAL)
        raise
    return EXIT_OK


if __name__ == "__main__":
    verbs.leave(run(sys.argv[1:]))
