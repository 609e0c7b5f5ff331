"""What every test shares: a cache of its own instead of the user's, none of the user's tips or data, one thread."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    base = tmp_path_factory.getbasetemp()
    # the workers' folders lie side by side: what one has acquired, the next maps
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    torch.set_num_threads(1)
    # a shell that starts the tests in the background, or nohup, has these ignored, and children would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        patch.delenv("DLTIPS_IMPORT", raising=False)
        patch.delenv("DLTIPS_DATA", raising=False)
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    """A test draws the same whichever ran before it."""
    torch.manual_seed(0)
