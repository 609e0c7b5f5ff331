import shutil
from pathlib import Path

import numpy
import pytest
import torch

from dltips import paths
from dltips.tips.data import Source
from dltips.tips.data.digits import digits
from dltips.tips.data.source import Acquired, cached


class Acquire:
    """Counts how often the data are acquired."""

    def __init__(self) -> None:
        self.calls = 0
        generator = numpy.random.default_rng(0)
        self.arrays = {
            "inputs": generator.integers(0, 256, (20, 1, 4, 4)).astype(numpy.uint8),
            "targets": generator.integers(0, 3, 20),
            "test_inputs": generator.integers(0, 256, (5, 1, 4, 4)).astype(numpy.uint8),
            "test_targets": generator.integers(0, 3, 5),
        }

    def __call__(self) -> Acquired:
        self.calls += 1
        return Acquired(self.arrays, ("a", "b", "c"), {"kind": "image"}, ("a note",))


@pytest.fixture
def acquire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acquire:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Acquire()


def files() -> dict[str, Path]:
    """The files of the only entry in the cache."""
    (folder,) = (paths.cache() / "arrays").iterdir()
    return {file.name: file for file in folder.iterdir()}


def check(source: Source, acquire: Acquire) -> None:
    """The source holds what was acquired."""
    assert source.classes == ("a", "b", "c")
    assert source.reader == {"kind": "image"}
    assert source.notes == ("a note",)
    assert source.test_inputs is not None
    assert source.test_targets is not None
    found = {
        "inputs": source.inputs,
        "targets": source.targets,
        "test_inputs": source.test_inputs,
        "test_targets": source.test_targets,
    }
    for name, array in acquire.arrays.items():
        assert torch.equal(found[name], torch.from_numpy(array)), name


def test_the_second_read_maps_the_cache_and_acquires_nothing(acquire: Acquire) -> None:
    first, second = cached("small", "1", acquire), cached("small", "1", acquire)
    assert acquire.calls == 1
    assert first.hash == second.hash
    for source in (first, second):
        check(source, acquire)
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert str(files()["inputs.npy"]) in mapped.read_text()


def test_nobody_can_change_the_cache_through_a_source(acquire: Acquire) -> None:
    cached("small", "1", acquire).inputs.zero_()
    check(cached("small", "1", acquire), acquire)


def test_another_key_or_name_is_another_entry(acquire: Acquire) -> None:
    for name, key in (("small", "1"), ("small", "2"), ("other", "1"), ("small", "1")):
        cached(name, key, acquire)
    assert acquire.calls == 3


def test_nothing_is_left_beside_the_cache(acquire: Acquire) -> None:
    cached("small", "1", acquire)
    assert set(files()) == {"meta.json", *(f"{name}.npy" for name in acquire.arrays)}


@pytest.mark.parametrize("name", ["meta.json", "inputs.npy", "targets.npy", "test_inputs.npy", "test_targets.npy"])
@pytest.mark.parametrize("kept", [0, 5, 30, -1])
def test_a_truncated_file_is_acquired_again(acquire: Acquire, name: str, kept: int) -> None:
    cached("small", "1", acquire)
    file = files()[name]
    file.write_bytes(file.read_bytes()[:kept])
    check(cached("small", "1", acquire), acquire)
    assert acquire.calls == 2
    check(cached("small", "1", acquire), acquire)  # and the cache is whole again
    assert acquire.calls == 2


@pytest.mark.parametrize("name", ["meta.json", "inputs.npy", "targets.npy", "test_inputs.npy", "test_targets.npy"])
def test_a_missing_file_is_acquired_again(acquire: Acquire, name: str) -> None:
    cached("small", "1", acquire)
    files()[name].unlink()
    check(cached("small", "1", acquire), acquire)
    assert acquire.calls == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"classes": 3, "hash": "x"}', "\x00\x01"])
def test_a_damaged_description_is_acquired_again(acquire: Acquire, content: str) -> None:
    cached("small", "1", acquire)
    files()["meta.json"].write_text(content)
    check(cached("small", "1", acquire), acquire)
    assert acquire.calls == 2


def test_pickled_objects_in_the_cache_are_never_loaded(acquire: Acquire) -> None:
    cached("small", "1", acquire)
    numpy.save(files()["inputs.npy"], numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
    check(cached("small", "1", acquire), acquire)
    assert acquire.calls == 2


def test_a_cache_that_cannot_be_written_costs_time_and_no_more(
    acquire: Acquire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for calls in (1, 2):
        check(cached("small", "1", acquire), acquire)
        assert acquire.calls == calls


def test_a_write_that_fails_midway_leaves_nothing_behind(acquire: Acquire, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numpy, "save", full)
    check(cached("small", "1", acquire), acquire)
    assert list((paths.cache() / "arrays").iterdir()) == []


def test_the_hash_is_of_the_samples_and_labels(acquire: Acquire) -> None:
    first = cached("small", "1", acquire).hash
    shutil.rmtree(paths.cache())
    assert cached("elsewhere", "2", acquire).hash == first
    seen = {first}
    for name, array in acquire.arrays.items():
        changed = Acquire()
        changed.arrays[name] = array.copy()
        changed.arrays[name].flat[-1] += 1
        seen.add(cached(f"changed_{name}", "1", changed).hash)
    reshaped = Acquire()
    reshaped.arrays["inputs"] = reshaped.arrays["inputs"].reshape(20, 1, 2, 8)
    seen.add(cached("reshaped", "1", reshaped).hash)
    assert len(seen) == 6


def test_a_source_without_an_official_test_set_has_none(acquire: Acquire) -> None:
    del acquire.arrays["test_inputs"], acquire.arrays["test_targets"]
    for _ in range(2):
        source = cached("small", "1", acquire)
        assert source.test_inputs is None
        assert source.test_targets is None


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    source, bunch = digits(), load_digits()
    assert source.inputs.shape == (1797, 1, 8, 8)
    assert source.inputs.dtype == torch.uint8
    assert source.classes == tuple("0123456789")
    assert source.test_inputs is None
    numpy.testing.assert_array_equal(source.targets, bunch.target)
    # 17 levels over 0..255, each within half a step of its place
    numpy.testing.assert_allclose(source.inputs[:, 0].numpy(), bunch.images * 255 / 16, atol=0.5)
    assert len(source.inputs.unique()) == 17
    assert digits().hash == source.hash
