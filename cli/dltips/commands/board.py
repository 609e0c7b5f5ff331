"""dltips board: TensorBoard on the runs of a folder, with means and intervals over seeds."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dltips.commands.arguments import Parser
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_INTERNAL, EXIT_OK, fail
from dltips.files import Locked, locked
from dltips.runs.file_names import LOCK
from dltips.signals import handling, interrupt, present

if TYPE_CHECKING:
    from dltips.insight.board_logdir import Board, BoardLayout

REFRESH = 30.0  # seconds between two scans of the runs
END_SECONDS = 10.0  # seconds that TensorBoard has to end
FOLDER = "dltips-board-"  # prefix of the temporary folder that TensorBoard shows
# Starts a command that ends with this process even if it is killed; the first argument is our process id. The kernel
# keeps the request when the process becomes the command. preexec_fn instead may deadlock beside threads.
LEASH = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):  # else we died before that
    os.execv(sys.argv[2], sys.argv[2:])
"""
SELECTED = 40  # runs: with more of them TensorBoard's Custom Scalars tab shows none until they are ticked

EPILOG = """The means and intervals are in the tab Custom Scalars; in Time Series write mean$ into the runs' filter to
see the means alone. Runs are called by what differs; --list says which folder is which."""


def run(arguments: list[str]) -> int:
    parser = Parser(
        prog="dltips board",
        description="TensorBoard on runs, with the mean and the 95 % interval over the seeds of each group.",
        epilog=EPILOG,
    )
    parser.add_argument("places", nargs="*", metavar="FOLDER", help="runs, sweeps, folders of them; default: outputs")
    parser.add_argument("--port", type=int, help="0: any that is free; default: 6006, or the next that is free")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: anyone who can reach this machine can see it")
    parser.add_argument("--open", action="store_true", help="open a browser")
    parser.add_argument("--list", action="store_true", help="say what would be shown, and under which names")
    chosen = parser.parse_args(arguments)
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("board: TensorBoard is not installed; pip install tensorboard")
    if not chosen.list:
        check_address(chosen.host, chosen.port)

    from dltips.insight.board_logdir import Board

    with handling(interrupt, present("SIGTERM", "SIGHUP")), _folder() as folder:
        board = Board(chosen.places, folder)
        layout = board.refresh()
        if chosen.list:
            _list(layout)
            return EXIT_OK
        _say(layout)
        try:
            return serve(board, layout, chosen.host, chosen.port, open_browser=chosen.open)
        except KeyboardInterrupt:  # the usual way to end a server
            return EXIT_OK


def check_address(host: str, port: int | None) -> None:
    """Raises ConfigError if TensorBoard cannot listen at the address."""
    if port is not None and not 0 <= port <= 65535:
        raise ConfigError(f"port: {port} is not a port; give one from 1 to 65535, or 0 for any that is free")
    if not host.strip():  # it would mean all of them
        raise ConfigError("host: '' is not an address of this machine; give 127.0.0.1")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except socket.gaierror:
        raise ConfigError(f"host: {host!r} is not known; give 127.0.0.1, or an address of this machine") from None
    except PermissionError:
        raise ConfigError(f"port: {port} is for the administrator; give one from 1024 on") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port: {port} is in use; give another, or --port 0 for any that is free") from None
        raise ConfigError(f"host: {host!r} is not an address of this machine; give 127.0.0.1") from None


def serve(board: Board, layout: BoardLayout, host: str, port: int | None, *, open_browser: bool) -> int:
    """Runs TensorBoard until it is stopped, updating the shown runs meanwhile; returns the exit code."""
    with _tensorboard(tensorboard_command(board.logs, board.places, host, port)) as (process, said):
        while not said.address.wait(0.1) and process.poll() is None:
            pass
        if said.url is None:
            return fail(f"board: TensorBoard did not start: {said.why()}", EXIT_INTERNAL)
        url = said.url + view(layout)
        print(url, flush=True)
        if open_browser:
            import webbrowser

            webbrowser.open(url)
        while True:
            try:
                process.wait(REFRESH)
                return fail(f"board: TensorBoard has ended: {said.why()}", EXIT_INTERNAL)
            except subprocess.TimeoutExpired:
                # runs that were removed, or a full disk: TensorBoard keeps what it has
                with contextlib.suppress(ConfigError, OSError):
                    board.refresh()


def view(layout: BoardLayout) -> str:
    """Returns the part of an address that sets up TensorBoard's view.

    No smoothing, which hides what happened; the deciding metric on top; one colour per group.
    """
    pins = json.dumps([{"plugin": "scalars", "tag": tag} for tag in layout.metrics()[:3]], separators=(",", ":"))
    colour = f"&runColorGroup={quote('regex:(.+)/', safe='')}" if layout.means else ""
    return f"?smoothing=0&pinnedCards={quote(pins, safe='')}{colour}#timeseries"


class StderrReader:
    """Reads a process's stderr without blocking it; keeps the last lines."""

    def __init__(self, stream: Any) -> None:
        self.url: str | None = None
        self.address = threading.Event()  # set once the address is known, or never will be
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: Any) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed meanwhile
            for line in stream:
                self._lines = [*self._lines, line.strip()][-20:]
                found = re.search(r"TensorBoard \S+ at (http://\S+?)/? ", line)
                if found:
                    self.url = f"{found[1]}/"
                    self.address.set()
        self.address.set()

    def why(self) -> str:
        self._thread.join(1)
        return next((line for line in reversed(self._lines) if line), "it printed nothing")


def tensorboard_command(logs: Path, places: Sequence[str], host: str, port: int | None) -> list[str]:
    return [
        *(sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", host),
        *("--port", "default" if port is None else str(port)),
        *("--window_title", f"dltips: {' '.join(places) or 'outputs'}", "--reload_interval", "5"),
        *("--reload_multifile", "true"),  # a resumed run has one file per session
        *("--samples_per_plugin", "scalars=100000,images=20,histograms=200"),  # every epoch; 0 shows none
    ]


@contextlib.contextmanager
def _tensorboard(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], StderrReader]]:
    _raise_file_limit()
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid()), *command]
    # a session of its own: ctrl-C reaches this process alone, which ends it
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stderr is not None
            yield process, StderrReader(process.stderr)
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Yields a temporary folder, locked while this process lives: a later board removes unlocked ones."""
    _remove_left_folders(Path(tempfile.gettempdir()))
    # renamed once it is locked: an unlocked one would be removed by another board
    new = Path(tempfile.mkdtemp(prefix=f".{FOLDER}"))
    with locked(new / LOCK):
        folder = new.rename(new.with_name(new.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left_folders(place: Path) -> None:
    """Removes the folders left by this user's killed boards."""
    if sys.platform == "win32":
        return
    for folder in place.glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError, Locked):
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                with locked(folder / LOCK):
                    shutil.rmtree(folder, ignore_errors=True)


def _raise_file_limit() -> None:
    """Raises the limit of open files: TensorBoard holds one per event file (default 1024)."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(layout: BoardLayout) -> None:
    means = {0: "", 1: ", 1 mean with its interval"}.get(
        len(layout.means), f", {len(layout.means)} means with their intervals"
    )
    print(f"{_count(len(layout.runs))}{means}; ctrl-C ends it", file=sys.stderr)
    silent = layout.without_events()
    if silent:
        text = f"{_count(len(silent))} wrote no events (log.tensorboard=false): curves are from metrics.jsonl"
        print(f"note      {text}, without layers and pictures", file=sys.stderr)
    if len(layout.runs) + len(layout.means) > SELECTED:
        text = (
            f"Custom Scalars ticks no run where there are more than {SELECTED}: write mean$ into its filter, tick those"
        )
        print(f"note      {text}", file=sys.stderr)


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _list(layout: BoardLayout) -> None:
    """Prints a line per run and per mean, sorted by name: the name, and the folder or the number of runs."""
    lines = {name: os.path.relpath(run.path) for name, run in layout.runs.items()}
    lines |= {name: f"mean of {_count(len(group.runs))}" for name, group in layout.means.items()}
    width = max(map(len, lines), default=0)
    for name in sorted(lines):
        print(f"{name:<{width}}  {lines[name]}")
