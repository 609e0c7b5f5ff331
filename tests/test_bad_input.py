"""Every mistake of the user ends in one line on stderr and exit code 2, and leaves the folder as it was."""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from dltips.catalog import source_reader
from dltips.commands.verbs import VERBS
from dltips.config import recipes
from dltips.main import main

Refused = Callable[..., str]
QUICK = ("epochs=2", "log.tensorboard=false", "log.pictures=none", "log.layers=false")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder; a file that may not be read counts by its presence."""
    readable = {path: path.is_file() and os.access(path, os.R_OK) for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): path.read_bytes() if readable[path] else None for path in readable}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line with which arguments are refused, in an empty folder that stays as it was."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        before = contents(tmp_path)
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("dltips: ") and err.count("\n") == 1 and "Traceback" not in err, err
        assert contents(tmp_path) == before
        return err.removeprefix("dltips: ").rstrip("\n")

    return call


def options(family: str) -> str:
    return ", ".join(sorted(source_reader.options(family)))


def owners(family: str, knob: str) -> str:
    return ", ".join(
        name for name in source_reader.options(family) if f"\n{knob}:" in source_reader.yaml_of(family, name)
    )


RECIPES = ", ".join(sorted(recipes.names()))

# … stands for the reason in between, which may be reworded; messages.txt has the whole texts
KEY_AND_REMEDY = [
    ("tarin", "'tarin' is not a verb; did you mean train?"),
    ("xyz", f"'xyz' is not a verb; there is: {', '.join(VERBS)}"),
    ("train +recipe=quickstrat", "recipe: 'quickstrat' … did you mean quickstart?"),
    ("train recipe=xyz", f"recipe: 'xyz' … there is: {RECIPES}"),
    ("train +recipe=../../x", f"recipe: '../../x' … there is: {RECIPES}"),
    ("train +recipe=", f"recipe: '' … there is: {RECIPES}"),
    ("train +recipe=[quickstart,x]", f"recipe: 'x' … there is: {RECIPES}"),
    ("train ~recipe", "~recipe: leave the recipe out by not naming it"),
    (
        "train recipe=quickstart recipe=quickstart",
        "recipe: … write 'recipe=[quickstart,quickstart]', in which the later one wins",
    ),
    (
        "train drop_last=true",
        "drop_last: … a single sample joins its neighbour",
    ),
    ("train init=hee", "init: 'hee' … did you mean he?"),
    (
        "train init=",
        f"init: '' … there is: {options('init')}",
    ),
    ("train data=fashion-mnist", "data: 'fashion-mnist' … did you mean fashion_mnist?"),
    ("train schedule=_common", f"schedule: '_common' … there is: {options('schedule')}"),
    ("train init=[he]", "init: … write init=he"),
    (
        "train optimizer={lr:1}",
        "optimizer: {'lr': 1} is not an option; it takes the name of one; there is: " + options("optimizer"),
    ),
    ("train regularization=[l2,dropuot]", "regularization: 'dropuot' … did you mean dropout?"),
    ("train augmentation=[flip,crpo]", "augmentation: 'crpo' … did you mean crop?"),
    ("train regularization=[none,l2]", "regularization: … write 'regularization=[l2]'"),
    ("train regularization=[l2,l1,l2]", "regularization: l2 … once is enough"),
    ("train augmentation=[]", "augmentation: … write augmentation=none"),
    ("train -m init=he,hee", "init: 'hee' … did you mean he?"),
    ("train +init=xavier", "+init=xavier: … write init=xavier without the plus"),
    ("train ++init=xavier", "++init=xavier: … write init=xavier without the plus"),
    ("train init@hydra.callbacks=he", "init@hydra.callbacks=he: … write init=OPTION"),
    (
        "train +recipe@hydra.callbacks=quickstart",
        "+recipe@hydra.callbacks=quickstart: … write recipe=NAME",
    ),
    ("train epoch=1", "epoch: … did you mean epochs?"),
    ("train lr=1", "lr: … did you mean optimizer.lr?"),
    ("train optim.lr=1", "optim.lr: … did you mean optimizer.lr?"),
    ("train foo=1", "foo: … see dltips train --help"),
    ("train +foo=1", "foo: … see dltips train --help"),
    ("train ++foo.bar=1", "foo.bar: … see dltips train --help"),
    ("train =he", ": there is no such key; see dltips train --help"),
    ("train log={layer:true}", "log.layer: … did you mean log.layers?"),
    ("train init.scale={a:1}", "init.scale.a: init=he … did you mean scale?"),
    ("train log.layer=true", "log.layer: … did you mean log.layers?"),
    ("train init.scal=2", "init.scal: init=he … did you mean scale?"),
    ("train +init.scal=2", "init.scal: init=he … did you mean scale?"),
    ("train ++init.foo=2", "init.foo: init=he … there is: distribution, gain, mode, scale"),
    ("train init.name=xavier", "init.name: init=he … there is: distribution, gain, mode, scale"),
    (
        "train regularization=l2 regularization.l2.name=l1",
        "regularization.l2.name: regularization=l2 … there is: l2.strength",
    ),
    ("train +epochs=3", "+epochs=3: … write epochs=3 without the plus"),
    ("train ~epochs", "~epochs: … set it to another value"),
    ("train ~init.scale", "~init.scale: … set it to another value"),
    ("train ~init", "~init: … set it to another value"),
    (
        "train +hydra.callback.x=1",
        "+hydra.callback.x=1: is refused; of Hydra's own keys there are hydra/launcher=NAME and"
        " hydra.launcher.KNOB=VALUE",
    ),
    (
        "train hydra.run.dir=x",
        "hydra.run.dir=x: is refused; runs lie under ./outputs, and name=NAME shows in their folder's name",
    ),
    (
        "train -m hydra.sweep.dir=x seed=1,2",
        "hydra.sweep.dir=x: is refused; runs lie under ./outputs, and name=NAME shows in their folder's name",
    ),
    ("train epochs=many", "epochs: 'many' is not a whole number"),
    ("train epochs=", "epochs: '' is not a whole number"),
    ("train epochs=1.5", "epochs: 1.5 is not a whole number"),
    ("train epochs=true", "epochs: True is not a whole number"),
    ("train epochs=1e400", "epochs: inf is not a whole number"),
    ("train epochs=null", "epochs: null … it takes a whole number"),
    ("train epochs=???", "epochs: is missing; give it a value"),
    ("train epochs=-1", "epochs: -1 … it must be at least 0"),
    ("train seed=-1", "seed: -1 … it must be at least 0"),
    (
        "train data.split_seed=99999999999999999999",
        "data.split_seed: 99999999999999999999 … it must fit 64 bits",
    ),
    ("train batch_size=0", "batch_size: 0 … it must be at least 1"),
    ("train batch_size=-64", "batch_size: -64 … it must be at least 1"),
    ("train batch_size=1438", "batch_size: 1438 … lower it"),
    (
        "train data.subset=50 batch_size=51",
        "batch_size: 51 … lower it",
    ),
    (
        "train batch_size=1",
        "batch_size: 1 … raise it, or write model.norm=none",
    ),
    ("train accumulate=65", "accumulate: 65 parts do not fit a batch of 64"),
    ("train optimizer.lr=fast", "optimizer.lr: 'fast' is not a number"),
    ("train optimizer.lr=0", "optimizer.lr: 0.0 … it must be above 0"),
    ("train optimizer.lr=nan", "optimizer.lr: nan … it must be finite"),
    ("train optimizer.lr=1e400", "optimizer.lr: inf … it must be finite"),
    ("train optimizer.nesterov=1", "optimizer.nesterov: 1 is not true or false"),
    (
        "train optimizer.nesterov=true optimizer.momentum=0",
        "optimizer.nesterov: true needs a momentum; set optimizer.momentum=0.9",
    ),
    ("train optimizer=adam optimizer.betas=[0.9]", "optimizer.betas: [0.9] is not two numbers below 1"),
    (
        "train optimizer=torch optimizer.cls=Nadam",
        "optimizer.cls: 'Nadam' … did you mean NAdam?",
    ),
    (
        "train optimizer=torch optimizer.options=3",
        "optimizer.options: 3 … write 'optimizer.options.NAME=VALUE'",
    ),
    ("train model.widths=12", "model.widths: 12 … write 'model.widths=[...]'"),
    ("train model.widths=[8,a]", "model.widths[1]: 'a' is not a whole number"),
    ("train model.widths=[8,0]", "model.widths[1]: 0 … it must be at least 1"),
    (
        "train model=cnn model.kernel_size=2",
        "model.kernel_size: 2 is even; an odd size keeps the sides with zero padding",
    ),
    (
        "train model=cnn model.widths=[8,8,8,8]",
        "model.widths: 4 … take fewer stages",
    ),
    ("train name=3", "name: 3 is not a text"),
    ("train log.layers=yes_please", "log.layers: 'yes_please' is not true or false"),
    (
        "train metric=val/f1",
        "metric: 'val/f1' … did you mean val/macro_f1?",
    ),
    ("train device=gpu", "device: 'gpu' … there is: auto, cpu, cuda, cuda:N, mps"),
    ("train device=", "device: '' … there is: auto, cpu, cuda, cuda:N, mps"),
    ("train device=cuda:99", "device: 'cuda:99' … write device=auto, and see dltips doctor"),
    ("train device=cpu:1", "device: 'cpu:1' … write device=auto, and see dltips doctor"),
    ("train device=meta", "device: 'meta' … write device=auto, and see dltips doctor"),
    ("train precision=bf16", "precision: 'bf16' … did you mean bfloat16?"),
    ("train precision=", "precision: '' is not one of auto, float32, bfloat16"),
    (
        "train regularization.dropout.p=0.3",
        "regularization.dropout.p: dropout … write 'regularization=[dropout]'",
    ),
    (
        "train regularization=[l2] ++regularization.dropout.p=0.3",
        "regularization.dropout.p: dropout … write 'regularization=[l2,dropout]'",
    ),
    ("train augmentation.flip.p=1", "augmentation.flip.p: flip … write 'augmentation=[flip]'"),
    (
        "train init=zeros init.scale=2",
        "init.scale: 2 … take another init scheme",
    ),
    (
        "train init=zeros init.mode=fan_out",
        "init.mode: init=zeros … it belongs to he: write init=he",
    ),
    (
        "train optimizer=adam optimizer.nesterov=true",
        f"optimizer.nesterov: optimizer=adam … it belongs to {owners('optimizer', 'nesterov')}: write optimizer=OPTION",
    ),
    (
        "train optimizer.weight_decay=1e-4",
        "optimizer.weight_decay: weight … write regularization=weight_decay (adamw has its own)",
    ),
    (
        "train data.root=x",
        f"data.root: data=digits … it belongs to {owners('data', 'root')}: write data=OPTION",
    ),
    (
        "train data.val_fraction=0.95",
        "data.val_fraction: 0.95 … both need some",
    ),
    ("train data.subset=9999", "data.subset: 9999 is more than the 1437 samples of the training split"),
    (
        "train regularization=dropout model.widths=[16]",
        "regularization.dropout.min_units: 256 … write regularization.dropout.min_units=16, or widen the model",
    ),
    (
        "train init=he,xavier",
        "init=he,xavier: several values need -m: dltips train -m 'init=he,xavier'; quote a value that contains a comma",
    ),
    (
        "train seed=range(5)",
        "seed=range(5): several values need -m: dltips train -m 'seed=range(5)'; quote a value that contains a comma",
    ),
    (
        "train recipe=quickstart,x seed=1",
        f"recipe: 'x' … there is: {RECIPES}",
    ),
    (
        "train name=${oc.decode:3}",
        "name: '${oc.decode:3}' … only plain interpolation like ${epochs} is allowed",
    ),
    (
        "train name=${hydra:job.name}",
        "name: '${hydra:job.name}' … only plain interpolation like ${epochs} is allowed",
    ),
    ("train --foo", "dltips train: unrecognized arguments: --foo; see dltips train --help"),
    ("train --config-name x", "--config-name: … see dltips train --help"),
    ("train --config-path=x", "--config-path=x: … see dltips train --help"),
    ("train --experimental-rerun x", "--experimental-rerun: … see dltips train --help"),
    ("train resume=nowhere", "nowhere: does … give one of the folders under outputs"),
    ("train resume=.", ".: … give one of the folders under outputs"),
    ("evaluate nowhere", "nowhere: does … give one of the folders under outputs"),
]


@pytest.mark.parametrize(("line", "message"), KEY_AND_REMEDY, ids=[line for line, _ in KEY_AND_REMEDY])
def test_one_line_says_what_is_wrong_and_what_to_write(refused: Refused, line: str, message: str) -> None:
    pattern = ".*".join(map(re.escape, message.split("…")))
    assert re.fullmatch(pattern, refused(*line.split(" ")))


# What Hydra's grammar cannot read: its complaint differs between versions, ours stays.
@pytest.mark.parametrize(
    "argument",
    ["model.widths=[12,", "model.widths=[12", "epochs=é", "épochs=1", "he", "", " ", "optimizer={lr:", "a b=1"],
)
def test_what_is_not_key_and_value_is_quoted_with_an_example(refused: Refused, argument: str) -> None:
    message = refused("train", argument)
    assert message.startswith(f"{argument!r}: is not KEY=VALUE as Hydra reads it (")
    assert message.endswith("; quote it as in 'model.widths=[128,128]' or 'name=\"a b\"'")


@pytest.mark.parametrize(
    ("value", "reason"),
    [("${foo}", "foo"), ("${optimizer.lr}", ""), ("${optimizer.momentum.x}", "momentum"), ("${", "")],
)
def test_an_interpolation_that_leads_nowhere_names_its_key(refused: Refused, value: str, reason: str) -> None:
    message = refused("train", f"optimizer.lr={value}")
    assert "optimizer.lr" in message and reason in message


def test_resume_without_a_value_says_what_to_give(refused: Refused) -> None:
    assert refused("train", "resume=").startswith("resume: ")


def test_resume_last_without_runs_names_the_folder(refused: Refused, tmp_path: Path) -> None:
    assert refused("train", "resume=last") == f"resume: last finds no unfinished run under {tmp_path / 'outputs'}"


def test_resuming_a_grid_is_left_to_its_own_command(refused: Refused, tmp_path: Path) -> None:
    command = "dltips train -m 'seed=range(2)'"
    grid = Path("outputs/2026-grid")
    for number, status in enumerate(("finished", "interrupted")):
        folder = grid / f"00{number}-x"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"status": status}))
    trials = [{"number": number, "folder": f"00{number}-x"} for number in (0, 1)]
    (grid / "sweep.json").write_text(json.dumps({"kind": "grid", "command": command, "trials": trials}))
    message = f"resume: {grid} holds many runs, which their own command goes on with: {command}"
    assert refused("train", "resume=last") == message
    assert refused("train", f"resume={grid}") == message
    (grid / "001-x" / "summary.json").write_text(json.dumps({"status": "diverged"}))
    assert refused("train", "resume=last") == f"resume: last finds no unfinished run under {tmp_path / 'outputs'}"
    (grid / "000-x" / "summary.json").unlink()
    assert refused("train", "resume=last") == message


def test_mps_is_refused_where_there_is_none(refused: Refused) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    assert (
        refused("train", "device=mps")
        == "device: 'mps' is not on this machine; write device=auto, and see dltips doctor"
    )


@pytest.mark.parametrize("arguments", [("seed=1,2", "epochs=many"), ("init=he,xavier", "optimizer.lr=-1")])
def test_a_refused_grid_leaves_nothing_behind(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *arguments]) == 2
    assert set(capsys.readouterr().err.splitlines()) != set()
    assert contents(tmp_path) == {}


# Not a mistake


def trained(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["train", *QUICK, *arguments]) == 0, capsys.readouterr().err
    (folder,) = (path for path in Path("outputs").iterdir())
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("data.subset=65", "batch_size=64"),  # 64 and a remainder of one
        ("data.subset=3", "batch_size=2"),
        ("data.subset=65", "batch_size=8", "accumulate=2"),
        ("data.subset=2", "batch_size=2"),
        ("data.subset=64", "batch_size=1", "model.norm=none"),
        ("data.subset=64", "model.widths=[]"),
    ],
)
def test_batches_that_do_not_divide_the_data_train(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = trained(arguments, capsys)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../x", "x"),
        ("'/etc/evil'", "etc-evil"),
        ("'..'", ""),
        ("a" * 1000, "a" * 60),
        ("'grüße und so'", "grüße-und-so"),
        ("''", ""),
        ("'a\\b'", "a-b"),
    ],
    ids=["traversal", "absolute", "dots", "long", "unicode", "empty", "backslash"],
)
def test_a_name_shows_in_the_folder_and_stays_inside_outputs(
    name: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert main(["train", *QUICK[1:], "epochs=0", f"name={name}"]) == 0, capsys.readouterr().err
    (folder,) = (inside / "outputs").iterdir()
    # time, microseconds, hash, name
    assert "-".join(folder.name.split("-")[4:]) == shown
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


# Data


def idx(sizes: tuple[int, ...], values: bytes) -> bytes:
    """The format of MNIST's files: a magic number, the sizes, the bytes."""
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + values


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder with 100 and 20 noise images in MNIST's layout; the path of its files."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 100), ("t10k", 20)):
        pixels = bytes((i * 7 + i // 784) % 256 for i in range(count * 784))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx((count, 28, 28), pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx((count,), bytes(i % 10 for i in range(count))))
    return raw


DATA = ("train", "data=mnist", "data.root=data", "data.download=false", "model.widths=[4]", "batch_size=20")


def test_a_small_data_set_in_its_layout_trains(
    mnist: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mnist.parents[2])
    assert main([*DATA, *QUICK]) == 0, capsys.readouterr().err


def test_a_wrong_value_of_a_flag_is_one_line(refused: Refused) -> None:
    message = refused("train", "--cfg", "jbo")
    assert message.startswith("dltips train: argument --cfg/-c: invalid choice: 'jbo' (choose from ")
    assert message.endswith("; see dltips train --help")


def test_a_data_root_that_is_not_there_or_no_folder(refused: Refused, tmp_path: Path) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "dltips" / "data"
    assert (
        refused("train", "data=mnist", "data.root=nowhere")
        == f"data.root: nowhere does not exist; create it, or leave data.root out to use {cache}"
    )
    (tmp_path / "file").write_text("")
    assert (
        refused("train", "data=cifar10", "data.root=file")
        == "data.root: file is a file; give the folder that holds cifar-10-batches-py"
    )


def skip_for_root(folder: Path) -> None:
    (folder / "probe").touch(mode=0)
    if os.access(folder / "probe", os.R_OK | os.W_OK):
        pytest.skip("permissions do not hold for this user")


def test_a_data_root_that_is_not_readable(
    refused: Refused, mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skip_for_root(tmp_path.parent)
    root = mnist.parents[1]
    file = mnist / "train-labels-idx1-ubyte"
    file.chmod(0)
    assert (
        refused(*DATA)
        == f"data.root: data: {Path('data/MNIST/raw') / file.name} cannot be read (Permission denied); check its"
        " permissions"
    )
    file.chmod(0o644)
    root.chmod(0)
    try:
        code = main([*DATA])
    finally:
        root.chmod(0o755)
    assert (code, capsys.readouterr().err) == (2, "dltips: data.root: data is not readable; check its permissions\n")


def test_a_file_that_cannot_be_opened(refused: Refused, mnist: Path) -> None:
    file = mnist / "train-labels-idx1-ubyte"
    file.unlink()
    file.mkdir()
    assert (
        refused(*DATA)
        == "data.root: data: data/MNIST/raw/train-labels-idx1-ubyte cannot be read (Is a directory); check its"
        " permissions"
    )


def test_a_missing_file_is_named_with_its_folder_and_the_remedy(refused: Refused, mnist: Path) -> None:
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    assert (
        refused(*DATA)
        == "data=mnist: data/MNIST/raw/t10k-labels-idx1-ubyte is missing and data.download=false; put it there, or set"
        " data.root (or DLTIPS_DATA) to the folder that holds raw"
    )


def test_without_a_network_one_line_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: every connection is refused at once
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("DLTIPS_DATA", str(tmp_path / "data"))
    assert main(["train", "data=fashion_mnist"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Traceback" not in err
    file = tmp_path / "data" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    assert err.startswith(f"dltips: data=fashion_mnist: {file} is missing and cannot be downloaded (")
    assert err.endswith("; put it there, or set data.root (or DLTIPS_DATA) to the folder that holds raw\n")
    assert not (tmp_path / "outputs").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def header(file: Path) -> None:
    file.write_bytes(b"\x01" + file.read_bytes()[1:])


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def packed_beside(file: Path) -> None:
    """One flipped byte: nothing but the checksum of the archive beside it can tell."""
    content = file.read_bytes()
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(content))
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("damage", [cut, empty, header, longer, packed_beside])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_truncated_or_corrupted_file_is_named(
    refused: Refused, mnist: Path, damage: Callable[[Path], None], name: str
) -> None:
    damage(mnist / name)
    message = refused(*DATA)
    assert message.startswith(f"data=mnist: {Path('data/MNIST/raw') / name} is damaged")
    assert "; delete it, and it is " in message


def test_a_damaged_archive_is_named(refused: Refused, mnist: Path) -> None:
    name = "train-labels-idx1-ubyte"
    archive = gzip.compress((mnist / name).read_bytes())
    (mnist / f"{name}.gz").write_bytes(archive[: len(archive) // 2])
    message = refused(*DATA)
    assert message.startswith(f"data=mnist: data/MNIST/raw/{name}.gz is damaged (")


def test_labels_that_do_not_fit_the_images(refused: Refused, mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx((99,), bytes(i % 10 for i in range(99))))
    assert refused(*DATA) == "data=mnist: data/MNIST/raw holds 100 images, but another number of labels"


def test_a_label_that_is_no_class_is_a_damaged_file(refused: Refused, mnist: Path) -> None:
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx((100,), bytes([200] + [i % 10 for i in range(99)])))
    assert "train-labels-idx1-ubyte" in refused(*DATA)


def test_cifar_with_the_wrong_content_names_the_file(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"no pickle at all")
    message = refused("train", "data=cifar10", "data.root=data", "data.download=false")
    assert message.startswith("data=cifar10: data/cifar-10-batches-py/data_batch_1 is damaged (")
    assert message.endswith("; delete it, and it is fetched again")


# Outputs


def test_outputs_that_is_a_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    message = refused("train", *QUICK)
    assert message.startswith(f"outputs: {tmp_path / 'outputs'} cannot be written (")
    assert message.endswith("; go to a folder of your own")


def test_outputs_that_leads_nowhere(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "outputs").symlink_to(tmp_path / "nowhere")
    assert refused("train", *QUICK).startswith(f"outputs: {tmp_path / 'outputs'}")


def test_outputs_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    skip_for_root(tmp_path.parent)
    (tmp_path / "outputs").mkdir(mode=0o555)
    message = refused("train", *QUICK)
    assert (
        message == f"outputs: {tmp_path / 'outputs'} cannot be written (Permission denied); go to a folder of your own"
    )


# Resume


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, on a schedule that does not depend on the length."""
    base = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.chdir(base)
        assert main(["train", *QUICK, "name=done", "checkpoint.interval=0"]) == 0
    (folder,) = (base / "outputs").iterdir()
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run, as outputs/done of the folder at hand."""
    shutil.copytree(finished, tmp_path / "outputs" / "done")
    return tmp_path / "outputs" / "done"


MAY_DIFFER = "leave it as it was, or start a new run (what may differ: epochs, device, devices, log, checkpoint, name)"


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        ("optimizer.lr=0.5", "optimizer.lr=0.1 (not 0.5)"),
        ("init=xavier", "init.name=he (not xavier)"),
        ("seed=1", "seed=0 (not 1)"),
        ("batch_size=32 seed=1", "batch_size=64 (not 32), seed=0 (not 1)"),
        ("model.widths=[8]", "model.widths=[128, 128] (not [8])"),
    ],
)
def test_resume_with_another_config_says_what_differs(
    refused: Refused, run: Path, arguments: str, difference: str
) -> None:
    assert (
        refused("train", "resume=outputs/done", "epochs=3", *arguments.split(" "))
        == f"resume: outputs/done was run with {difference}; {MAY_DIFFER}"
    )


def test_resume_with_another_recipe_says_what_differs(refused: Refused, run: Path) -> None:
    message = refused("train", "resume=outputs/done", "epochs=3", "+recipe=quickstart")
    assert message.startswith("resume: outputs/done was run with ") and message.endswith(MAY_DIFFER)
    assert "schedule.name=constant (not cosine)" in message


def test_resume_of_a_run_that_has_all_its_epochs(refused: Refused, run: Path) -> None:
    assert (
        refused("train", "resume=outputs/done")
        == "resume: outputs/done has its 2 epochs; write epochs=N with more of them to go on"
    )


def test_resume_cannot_make_a_schedule_longer_that_depends_on_the_length(
    refused: Refused, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run)
    assert main(["train", *QUICK, "schedule=cosine"]) == 0
    (folder,) = Path("outputs").iterdir()
    assert (
        refused("train", f"resume={folder}", "epochs=3")
        == f"epochs: {folder} was planned for 2 epochs, and schedule=cosine depends on it; leave epochs out, or start a"
        " new run"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{", b"- a\n", b"text\n", b""])
def test_resume_from_a_config_that_cannot_be_read(refused: Refused, run: Path, content: bytes) -> None:
    (run / "config.yaml").write_bytes(content)
    assert "outputs/done" in refused("train", "resume=outputs/done", "epochs=3")


@pytest.mark.parametrize(
    "addition",
    [
        "hydra:\n  callbacks:\n    x:\n      _target_: pathlib.Path.touch\n      self: pwned\n",
        "extra:\n  _target_: pathlib.Path.touch\n  self: pwned\n",
        "extra:\n  - _target_: pathlib.Path.touch\n    self: pwned\n",
        "extra: ${oc.decode:3}\n",
        "extra: ${hydra:runtime.cwd}\n",
        "extra: 1\n",
        "extra: !!python/object/apply:os.mkdir [pwned]\n",
    ],
)
def test_a_run_folder_is_data_that_nobody_executes(refused: Refused, run: Path, addition: str) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(addition)
    assert refused("train", "resume=outputs/done", "epochs=3")
    assert refused("evaluate", "outputs/done")


def test_target_in_a_list_of_the_runs_own_config_is_refused_by_name(refused: Refused, run: Path) -> None:
    text = (run / "config.yaml").read_text()
    assert "  - 128\n  - 128\n" in text
    (run / "config.yaml").write_text(text.replace("  - 128\n  - 128\n", "  - _target_: os.getcwd\n"))
    assert "_target_" in refused("train", "resume=outputs/done", "epochs=3")


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parents[1])
    last = run / "last.pt"
    last.write_bytes(last.read_bytes()[:100])
    assert main(["train", "resume=outputs/done", "epochs=3"]) == 0
    err = capsys.readouterr().err
    assert f"resume: {Path('outputs/done/last.pt')}: " in err and "going on from the checkpoint before it" in err
    epochs = [line.split(",")[0] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == ['{"epoch": 1', '{"epoch": 2', '{"epoch": 3']


def test_two_damaged_checkpoints_are_refused(refused: Refused, run: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        content = bytearray((run / name).read_bytes())
        content[len(content) // 2] ^= 255  # the length is right, the checksum of the archive is not
        (run / name).write_bytes(content)
    message = refused("train", "resume=outputs/done", "epochs=3")
    assert message.startswith("resume: no checkpoint of outputs/done can be read (")
    assert message.endswith("; start a new run")
    assert "last.pt" in message and "previous.pt" in message


def test_a_checkpoint_of_another_net_is_refused(refused: Refused, run: Path) -> None:
    text = (run / "config.yaml").read_text().replace("  - 128\n  - 128\n", "  - 64\n  - 128\n")
    (run / "config.yaml").write_text(text)
    assert (
        refused("train", "resume=outputs/done", "epochs=3")
        == "resume: the checkpoint's net is another one than the config's"
    )


def test_resume_says_that_the_data_have_changed(refused: Refused, run: Path) -> None:
    environment = run / "environment.json"
    text = environment.read_text()
    data_hash = text.split('"data_hash": "')[1][:16]
    environment.write_text(text.replace(data_hash, "0" * 16))
    assert (
        refused("train", "resume=outputs/done", "epochs=3")
        == "resume: the data are not those of outputs/done any more; start a new run"
    )


def test_a_bad_run_of_a_grid_is_refused_before_the_first_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", "epochs=0,x"]) == 2
    assert capsys.readouterr().err == "dltips: epochs: 'x' is not a whole number\n"
    assert list(tmp_path.iterdir()) == []
