"""Whether weights can be fetched: seen before anything heavy is imported, and whatever the network does."""

import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dltips.errors import ConfigError
from dltips.weights import reachability


def test_a_host_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection hangs for good: whoever gets to the assertion has not waited for it."""

    def hangs(*_: Any, **__: Any) -> Any:
        threading.Event().wait()

    monkeypatch.setattr(socket, "create_connection", hangs)
    assert not reachability.reachable("https://hub.example", seconds=0.05)


def test_a_host_is_reached_and_so_is_the_proxy_that_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reachability.reachable(here)
        monkeypatch.setenv("https_proxy", here)
        monkeypatch.setenv("no_proxy", "")
        assert reachability.reachable("https://hub.invalid")


def test_the_command_says_so_without_torch_and_timm(tmp_path: Path) -> None:
    script = (
        "import sys; from dltips.main import main; code = main(sys.argv[1:]);"
        " assert not {'torch', 'timm'} & set(sys.modules), 'imported'; sys.exit(code)"
    )
    chosen = ["train", "model=timm", "finetune=full", "finetune.source=timm:resnet18"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script, *chosen], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        "dltips: finetune.source: timm:resnet18 is not in the cache, and HF_HUB_OFFLINE forbids to download it; give"
        " its file (finetune.file=FILE)\n"
    )


@pytest.mark.parametrize("kept", ["hub/models--timm--resnet18.a1_in1k", "torch/hub/checkpoints"])
def test_what_may_be_in_the_cache_is_not_refused(kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / kept).mkdir(parents=True)
    (tmp_path / kept / "file").touch()
    reachability.refuse_early("timm:resnet18", None)
    (tmp_path / kept / "file").unlink()
    (tmp_path / kept).rmdir()
    with pytest.raises(ConfigError, match="not in the cache"):
        reachability.refuse_early("timm:resnet18", None)
    for source, file in (("timm:resnet18", "w.pth"), ("outputs/run", None), (None, None), ("timm:", None)):
        reachability.refuse_early(source, file)
