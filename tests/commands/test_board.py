"""dltips board: what it says and refuses, that it serves on this machine alone, and that it leaves nothing behind."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from dltips.commands import board
from dltips.main import main

PATIENCE = 60  # seconds; a busy machine needs some


def make(folder, **settings):
    folder.mkdir(parents=True)
    settings = {"init": "he", "seed": 0} | settings
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "val/accuracy": 0.5}\n')
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "settings": settings}))


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, init in enumerate(("he", "he", "zeros")):
        make(tmp_path / "outputs" / f"{number:03d}", init=init, seed=number)
    return tmp_path / "outputs"


def refused(capsys, *arguments):
    """The one line on stderr of a call that is refused."""
    assert main(["board", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err.removeprefix("dltips: ").rstrip("\n")


def test_the_list_says_which_name_is_which_folder(outputs, capsys):
    assert main(["board", "--list"]) == 0
    assert capsys.readouterr().out == (
        "init=he/mean    mean of 2 runs\n"
        "init=he/seed 0  outputs/000\n"
        "init=he/seed 1  outputs/001\n"
        "init=zeros      outputs/002\n"
    )


def test_a_place_without_runs_is_one_line(outputs, capsys):
    Path("empty").mkdir()
    assert refused(capsys, "empty") == "empty: has no run in it; give a run, a sweep, or a folder of them"
    assert refused(capsys, "nowhere") == "nowhere: does not exist; give a run, a sweep, or a folder of them"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "70000"], "port: 70000 is not a port; give one from 1 to 65535, or 0 for any that is free"),
        (["--port", "x"], "dltips board: argument --port: invalid int value: 'x'; see dltips board --help"),
        (["--host", "203.0.113.1"], "host: '203.0.113.1' is not an address of this machine; give 127.0.0.1"),
        (["--host", ""], "host: '' is not an address of this machine; give 127.0.0.1"),
    ],
)
def test_a_wrong_address_is_one_line(outputs, capsys, arguments, line):
    assert refused(capsys, *arguments) == line


def test_a_host_that_nobody_knows_is_one_line(outputs, capsys, monkeypatch):
    def unknown(*arguments, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    wanted = "host: 'nobody' is not known; give 127.0.0.1, or an address of this machine"
    assert refused(capsys, "--host", "nobody") == wanted


def test_a_port_in_use_is_one_line(outputs, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wanted = f"port: {port} is in use; give another, or --port 0 for any that is free"
        assert refused(capsys, "--port", port) == wanted


def test_without_tensorboard_it_says_what_to_install(outputs, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused(capsys) == "board: TensorBoard is not installed; pip install tensorboard"


def test_a_tensorboard_that_does_not_start_is_one_line(outputs, capsys, monkeypatch):
    monkeypatch.setattr(board, "tensorboard_command", lambda *_: [sys.executable, "-c", "raise SystemExit('cannot')"])
    assert main(["board"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "dltips: board: TensorBoard did not start: cannot"


def test_runs_without_events_are_said(outputs, capsys, monkeypatch):
    monkeypatch.setattr(board, "serve", lambda *_, **__: 0)
    assert main(["board"]) == 0
    assert capsys.readouterr().err == (
        "3 runs, 1 mean with its interval; ctrl-C ends it\n"
        "note      3 runs wrote no events (log.tensorboard=false): curves are from metrics.jsonl, without layers and"
        " pictures\n"
    )


def test_many_runs_are_said(outputs, capsys, monkeypatch):
    for number in range(3, 41):
        make(outputs / f"{number:03d}", init=f"a{number}")
    monkeypatch.setattr(board, "serve", lambda *_, **__: 0)
    assert main(["board"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == (
        "note      Custom Scalars ticks no run where there are more than 40: write mean$ into its filter, tick those"
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_on_this_machine_and_ends_without_a_trace(outputs, tmp_path, how):
    (tmp_path / "tmp").mkdir()
    surroundings = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    code = "import sys; from dltips.main import main; code = main(['board', '--port', '0']);"
    code += "print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules))); sys.exit(code)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            host = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)\?smoothing=0&pinnedCards=.*#timeseries", address)
            assert host, process.stderr.read()
            with urllib.request.urlopen(f"{host[1]}data/environment", timeout=PATIENCE) as answer:
                assert answer.status == 200
            children = children_of(process.pid)
            assert children and list((tmp_path / "tmp").glob("dltips-board-*"))
            process.send_signal(how)
            rest, said = process.communicate(timeout=PATIENCE)
        finally:
            process.terminate()  # killed, it could not end its server
    assert (process.returncode, rest) == (0, "[]\n")
    assert "Traceback" not in said
    assert [path for path in (tmp_path / "tmp").rglob("*") if path.name != ".tensorboard-info"] == []
    assert not any(alive(child) for child in children)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_killed_it_takes_its_server_along_and_a_later_one_sweeps(outputs, tmp_path, capsys, monkeypatch):
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with subprocess.Popen(
        [sys.executable, "-m", "dltips", "board", "--port", "0"],
        env=os.environ | {"TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            address = re.match(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
            assert address
            (left,) = place.glob("dltips-board-*")
            (place / "dltips-board-link").symlink_to(outputs)
            assert main(["board", "--list"]) == 0
            assert left.is_dir()  # of a board that runs
            (child,) = children_of(process.pid)
            handle = os.pidfd_open(child)
        finally:
            process.kill()
    assert select.select([handle], [], [], PATIENCE)[0], "the server runs on"
    os.close(handle)
    with socket.socket() as server:  # the port is free
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(address[1])))
    assert left.is_dir()
    assert main(["board", "--list"]) == 0
    assert [path.name for path in place.glob("*dltips-board-*")] == ["dltips-board-link"]
    assert len(list(outputs.iterdir())) == 3


def children_of(pid):
    """The processes that a process has started, as /proc says; none known elsewhere."""
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    pytest.skip("needs Linux's /proc to see the server's process")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
