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
    assert refused(path) == (
        f"holds code: to read it would call {os.system.__module__}.system; refused, and not run: ask for a .safetensors"
        " file, or for the state dict alone"
    )
    assert not mark.exists()
    torch.load(path, weights_only=False) if write in (zipped, legacy) else pickle.loads(path.read_bytes())
    assert mark.exists()  # it is a real one


def test_a_whole_module_is_code_too(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(net(), tmp_path / "w.pth")
    assert "holds code: to read it would call torch.nn.modules." in refused(tmp_path / "w.pth")


def test_a_torchscript_archive_is_code_too(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == (
        "is a TorchScript archive, which holds code; give its state dict (torch.save(torch.jit.load(FILE).state_dict(),"
        " ...)) or a .safetensors file"
    )


@pytest.mark.parametrize("write", [zipped, legacy, safetensors])
def test_a_truncated_file_is_refused_wherever_it_ends(write: Callable[[Any, Path], None], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    write(state(), path)
    whole = path.read_bytes()
    for size in range(16, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        said = refused(path)
        assert re.fullmatch(r"is cut short or damaged \(.+\); download it again", said), (size, said)


def test_a_flipped_bit_in_an_archive_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"weight": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        (entry,) = [each for each in archive.infolist() if each.filename.endswith("data/0")]
    content = bytearray(path.read_bytes())
    content[content.index(bytes(4000)) + 100] ^= 1
    path.write_bytes(content)
    assert refused(path) == f"is damaged: {entry.filename} fails its checksum; download it again"


GIVE = "give a .pth or .safetensors file of weights"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (b"<!DOCTYPE html><html><body>404", "is a web page, not weights; download the file itself"),
        (b"\n  <html lang='en'>", "is a web page, not weights; download the file itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "is git-lfs's pointer to the weights; fetch them with git lfs pull",
        ),
        (b'{"weights": [1, 2]}', f"is text, not weights (it begins with '{{\"weights\": [1, 2]}}'); {GIVE}"),
        ("Grüße\nvon".encode(), f"is text, not weights (it begins with 'Grüße'); {GIVE}"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), f"is a picture (PNG), not weights; {GIVE}"),
        (b"\xff\xd8\xff\xe0" + bytes(50), f"is a picture (JPEG), not weights; {GIVE}"),
        (b"\x1f\x8b\x08" + bytes(50), "is packed with gzip; unpack it first"),
        (b"\x89HDF\r\n" + bytes(50), f"is an HDF5 file, as Keras writes them, not weights; {GIVE}"),
        (b"\1\2" + bytes(80), f"is no file of weights (it begins with the bytes 01 02 00 00 00 00 00 00); {GIVE}"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_weights_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert refused(tmp_path / "w.pth") == said


def test_archives_of_others_are_named(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "w.npz", a=numpy.zeros(2))
    assert refused(tmp_path / "w.npz") == f"is numpy's archive (it holds a.npy); {GIVE}"
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("w.pth", b"inside")
    assert refused(tmp_path / "w.zip") == f"is a zip archive, but not torch's (it holds w.pth); {GIVE}"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"epoch": 1}, "holds no tensors with names; save model.state_dict()"),
        ({}, "holds no tensors with names; save model.state_dict()"),
        ({0: torch.ones(2)}, "holds no tensors with names; save model.state_dict()"),
        (torch.ones(2), "holds one tensor without a name, no state dict; save model.state_dict()"),
        ([torch.ones(2)], "holds a list, no state dict; save model.state_dict()"),
        (
            {"generator": {"w": torch.ones(2)}, "critic": {"w": torch.ones(2)}},
            "holds several state dicts (generator, critic); save the one that you mean by itself",
        ),
    ],
)
def test_a_file_without_one_state_dict_is_refused(held: Any, said: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pth")
    assert refused(tmp_path / "w.pth") == said


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "resnet18.pth")
    assert refused(tmp_path / "resnt18.pth") == "does not exist; did you mean resnet18.pth?"
    assert refused(tmp_path / "none" / "w.pth") == f"does not exist; {GIVE}"
    assert refused(tmp_path) == f"is a folder, and no run of dltips; write finetune.source={tmp_path / 'resnet18.pth'}"
    assert refused(tmp_path / "w.pth", "finetune.file").startswith("does not exist")
    with pytest.raises(ConfigError, match=r"^finetune\.source: '' is no path; give a \.pth or \.safetensors"):
        read("")
