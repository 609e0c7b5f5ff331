"""A PostgreSQL cluster of the tests' own: by initdb in a temporary folder, on loopback, of an unprivileged user."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "only-for-this-test"


def binaries() -> Path | None:
    """The folder of initdb and postgres; None if PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def missing() -> str | None:
    """Why no cluster can be made here; None if one can."""
    if binaries() is None:
        return "PostgreSQL is not installed (initdb and postgres)"
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
    return None


def _user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free_port()
        self._as: dict[str, str | int] = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_user() or "")
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}  # type: ignore[dict-item]
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        (folder / "password").write_text(PASSWORD)
        os.chmod(folder / "password", 0o644)
        self._run("initdb", "-D", "data", "-U", "dltips", "--auth=scram-sha-256", "--pwfile=password", "--no-sync")

    def url(self, password: str | None = PASSWORD, database: str = "postgres") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://dltips{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-w", "-o", options, "-l", "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        folder = binaries()
        assert folder is not None
        command: Sequence[str] = [str(folder / program), *arguments]
        # the server keeps what it inherits: no pipe, which would never be read to its end
        with (self.folder / "out").open("wb") as out:
            done = subprocess.run(command, cwd=self.folder, stdout=out, stderr=out, **self._as)  # type: ignore[call-overload]
        assert done.returncode == 0, (self.folder / "out").read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running() -> Iterator[Cluster]:
    # below /tmp itself: pytest's folders are closed to other users
    with tempfile.TemporaryDirectory(prefix="dltips-postgres-") as folder:
        cluster = Cluster(Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
