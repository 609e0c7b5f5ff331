"""Files of weights: each kind is read to the same tensors, what is none is refused in one line, and nothing runs."""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.weights.files import read


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return net().state_dict()


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def refused(path: Path | str, key: str = "finetune.source") -> str:
    """What comes after the key and the path."""
    with pytest.raises(ConfigError) as caught:
        read(path, key)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{key}: {path} ")
    return line.removeprefix(f"{key}: {path} ")


def zipped(held: Any, path: Path) -> None:
    torch.save(held, path)


def legacy(held: Any, path: Path) -> None:
    torch.save(held, path, _use_new_zipfile_serialization=False)


def safetensors(held: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(held, path)


@pytest.mark.parametrize("write", [zipped, legacy, safetensors])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin", "w.th", "w"])
def test_every_format_is_told_by_its_content_whatever_its_name(
    write: Callable[[Any, Path], None], name: str, tmp_path: Path
) -> None:
    write(state(), tmp_path / name)
    assert same(read(tmp_path / name), state())


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "params", "model_ema", "module"])
@pytest.mark.parametrize("write", [zipped, legacy])
def test_weights_come_out_of_what_training_scripts_wrap_around_them(
    write: Callable[[Any, Path], None], key: str, tmp_path: Path
) -> None:
    held = {
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        key: state(),
        "best": numpy.float64(0.5),
        "args": argparse.Namespace(lr=0.1),
    }
    write(held, tmp_path / "w.pth")
    assert same(read(tmp_path / "w.pth"), state())


def test_the_average_of_the_weights_comes_before_the_weights(tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in state().items()}
    torch.save({"state_dict": state(), "state_dict_ema": averaged}, tmp_path / "w.pth")
    assert same(read(tmp_path / "w.pth"), averaged)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_what_torch_puts_in_front_of_names_is_stripped(prefix: str, tmp_path: Path) -> None:
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state().items()}
    torch.save({"n_averaged": torch.tensor(3), **wrapped}, tmp_path / "w.pth")
    assert same(read(tmp_path / "w.pth"), {"n_averaged": torch.tensor(3), **state()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_tensors_become_float32_and_whole_numbers_stay(dtype: torch.dtype, tmp_path: Path) -> None:
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    torch.save(given, tmp_path / "w.pth")
    found = read(tmp_path / "w.pth")
    assert found["1.num_batches_tracked"].dtype == torch.int64
    assert found["0.weight"].dtype == torch.float32 and torch.equal(found["0.weight"], given["0.weight"].float())


def test_parameters_are_tensors_without_a_gradient(tmp_path: Path) -> None:
    torch.save(dict(net().named_parameters()), tmp_path / "w.pth")
    assert not any(tensor.requires_grad for tensor in read(tmp_path / "w.pth").values())


class Shell:
    """On being read it would run a command, which leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("write", [zipped, legacy, lambda held, path: path.write_bytes(pickle.dumps(held))])
@pytest.mark.parametrize("beside", [True, False])
def test_a_pickle_with_code_is_refused_and_never_run(
    write: Callable[[Any, Path], None], beside: bool, tmp_path: Path
) -> None:
    mark, path = tmp_path / "ran", tmp_path / "w.pth"
    write({**(state() if beside else {}), "code": Shell(mark)}, path)
    assert re.search(rf"code: .*{os.system.__module__}\.system; .*ask for a \.safetensors file", refused(path))
    assert not mark.exists()
    torch.load(path, weights_only=False) if write in (zipped, legacy) else pickle.loads(path.read_bytes())
    assert mark.exists()  # it is a real one


def test_a_whole_module_is_code_too(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(net(), tmp_path / "w.pth")
    assert re.search(r"code: .*torch\.nn\.modules\.", refused(tmp_path / "w.pth"))


def test_a_torchscript_archive_is_code_too(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    assert re.search(r"TorchScript .*code; give its state dict .*or a \.safetensors file$", refused(tmp_path / "w.pt"))


@pytest.mark.parametrize("write", [zipped, legacy, safetensors])
def test_a_truncated_file_is_refused_wherever_it_ends(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    write(state(), path)
    whole = path.read_bytes()
    for size in range(16, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        said = refused(path)
        assert re.search(r"damaged \(.+\); download it again$", said), (size, said)


def test_a_flipped_bit_in_an_archive_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"weight": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        (entry,) = [each for each in archive.infolist() if each.filename.endswith("data/0")]
    content = bytearray(path.read_bytes())
    content[content.index(bytes(4000)) + 100] ^= 1
    path.write_bytes(content)
    assert re.search(rf"damaged: {entry.filename} .*checksum; download it again$", refused(path))


GIVE = r"give a \.pth or \.safetensors file"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty; download it again$"),
        (b"<!DOCTYPE html><html><body>404", "web page.*; download the file itself$"),
        (b"\n  <html lang='en'>", "web page.*; download the file itself$"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "git-lfs.*; .*git lfs pull$",
        ),
        (b'{"weights": [1, 2]}', rf"text.*'{{\"weights\": \[1, 2\]}}'.*; {GIVE}"),
        ("Grüße\nvon".encode(), f"text.*'Grüße'.*; {GIVE}"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), rf"picture \(PNG\).*; {GIVE}"),
        (b"\xff\xd8\xff\xe0" + bytes(50), rf"picture \(JPEG\).*; {GIVE}"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip; unpack it first$"),
        (b"\x89HDF\r\n" + bytes(50), f"HDF5 .*; {GIVE}"),
        (b"\1\2" + bytes(80), f"file of weights .*01 02 00 00 00 00 00 00.*; {GIVE}"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_weights_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert re.search(said, refused(tmp_path / "w.pth"))


def test_archives_of_others_are_named(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "w.npz", a=numpy.zeros(2))
    assert re.search(rf"numpy's archive .*a\.npy.*; {GIVE}", refused(tmp_path / "w.npz"))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("w.pth", b"inside")
    assert re.search(rf"zip archive, .*torch's .*w\.pth.*; {GIVE}", refused(tmp_path / "w.zip"))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"epoch": 1}, r"no tensors.*; save model\.state_dict\(\)$"),
        ({}, r"no tensors.*; save model\.state_dict\(\)$"),
        ({0: torch.ones(2)}, r"no tensors.*; save model\.state_dict\(\)$"),
        (torch.ones(2), r"one tensor.*; save model\.state_dict\(\)$"),
        ([torch.ones(2)], r"a list, .*; save model\.state_dict\(\)$"),
        (
            {"generator": {"w": torch.ones(2)}, "critic": {"w": torch.ones(2)}},
            r"several state dicts \(generator, critic\); save ",
        ),
    ],
)
def test_a_file_without_one_state_dict_is_refused(held: Any, said: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pth")
    assert re.search(said, refused(tmp_path / "w.pth"))


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "resnet18.pth")
    assert re.search(r"did you mean resnet18\.pth\?$", refused(tmp_path / "resnt18.pth"))
    assert re.search(f"does not exist; {GIVE}", refused(tmp_path / "none" / "w.pth"))
    assert re.search(rf"folder.*; write finetune\.source={tmp_path / 'resnet18.pth'}$", refused(tmp_path))
    assert refused(tmp_path / "w.pth", "finetune.file").startswith("does not exist")
    with pytest.raises(ConfigError, match=rf"^finetune\.source: '' .*path; {GIVE}"):
        read("")
