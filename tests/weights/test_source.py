"""Weights with the inputs they want: a run's, timm's by name, a file's; what does not fit says what to type."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.main import main
from dltips.tips.preprocessing import Affine, save
from dltips.train.build import build_model
from dltips.weights.match import load_into
from dltips.weights.source import Pretrained, find, fingerprint

SHORT = ("device=cpu", "epochs=1", "log.tensorboard=false", "log.pictures=none", "data.subset=300")


def configured(source: object, *overrides: str) -> Config:
    return validate(compose(["finetune=full", f"finetune.source={source}", *overrides])[0])


def found(source: object, *overrides: str) -> Pretrained:
    return find(configured(source, *overrides))


def refused(source: object, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        found(source, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def loaded(source: object, *overrides: str, shape: tuple[int, ...]) -> tuple[dict[str, Tensor], str]:
    config = configured(source, *overrides)
    model = build_model(config, shape, 3, [])
    report = load_into(find(config), model, config.tip("model"), config.common["finetune"]()).report
    return model.state_dict(), report


# Runs of dltips


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn on digits, trained for real."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", *SHORT, "model=cnn", "model.widths=[8,16]", "activation=elu"]) == 0
    (folder,) = (place / "outputs").iterdir()
    return folder


CNN = ("model=cnn", "model.widths=[8,16]", "activation=elu")


def test_a_run_brings_its_weights_its_preprocessing_and_its_shape(run: Path) -> None:
    pretrained = found(run, *CNN)
    payload = torch.load(run / "best.pt", weights_only=True)
    assert pretrained.origin == str(run) and pretrained.notes == ()
    assert pretrained.state.keys() == payload["model"].keys()
    assert (pretrained.channels, pretrained.sides, pretrained.shape) == (1, (8, 8), (1, 8, 8))
    for (kind, buffers), (kept, others) in zip(save(pretrained.preprocess), payload["preprocessing"], strict=True):
        assert kind == kept and all(torch.equal(buffers[name], others[name]) for name in others)
    net, report = loaded(run, *CNN, shape=(1, 8, 8))
    assert "1,272 of 1,272 parameters matched (dltips' names); the head is new" in report
    body = [name for name in net if not name.startswith("head.")]
    assert body and all(torch.equal(net[name], payload["model"][name]) for name in body)


def test_the_last_checkpoint_serves_where_there_is_no_best_one(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "best.pt").unlink()
    last = torch.load(run / "last.pt", weights_only=True)["model"]
    assert found(copied, *CNN).hash == fingerprint(last)
    (copied / "last.pt").unlink()
    message = rf"^finetune\.source: {copied} .*best\.pt .*last\.pt: .*give another one$"
    assert re.search(message, refused(copied, *CNN))


def test_a_checkpoint_file_is_as_good_as_its_folder(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "best.pt", tmp_path / "mine.pt")
    for file in (run / "best.pt", tmp_path / "mine.pt"):
        pretrained = found(file, *CNN)
        assert pretrained.hash == found(run, *CNN).hash and pretrained.shape == (1, 8, 8)


def test_a_damaged_checkpoint_sends_to_the_other_one(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "best.pt").write_bytes((run / "best.pt").read_bytes()[:500])
    said = refused(copied, *CNN)
    assert said.startswith(f"finetune.source: {copied}/best.pt: ")
    assert said.endswith(f"; write finetune.source={copied}/last.pt")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("model=mlp", "activation=elu"),
            r"model=cnn 'model\.widths=\[8,16\]', .*model=mlp; write model=cnn 'model\.widths=\[8,16\]'$",
        ),
        (
            ("model=cnn", "model.widths=[8,16]", "model.depth=2"),
            r"model\.depth=1 activation=elu, .*model\.depth=2 activation=relu; write model\.depth=1 activation=elu$",
        ),
    ],
)
def test_another_net_than_the_runs_is_refused_with_what_to_type(
    overrides: tuple[str, ...], said: str, run: Path
) -> None:
    for source in (run, run / "last.pt"):
        assert re.search(rf"^finetune\.source: {source} .*{said}", refused(source, *overrides))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("model=cnn", "model.widths=[8,16]"), "activation=elu, this run has activation=relu"),
        ((*CNN, "activation.alpha=0.5"), "activation.alpha=1.0, this run has activation.alpha=0.5"),
    ],
)
def test_another_activation_is_said(overrides: tuple[str, ...], said: str, run: Path) -> None:
    """It is what the claim of PReLU in fine-tuning asks for."""
    assert found(run, *overrides).notes == (f"finetune.source: {run} was trained with {said}",)
    assert found(run, *CNN).notes == ()


def test_another_activation_than_a_librarys_is_said(tmp_path: Path) -> None:
    path, _ = torchvisions(tmp_path)
    assert found(path, *RESNET, "activation=gelu").notes[1:] == (
        f"finetune.source: {path} was trained with activation=relu, this run has activation=gelu",
    )


def test_dropout_in_front_of_the_head_may_differ(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    config = configured(copied, "model=mobilenet_v2", "model.width=0.125", "model.dropout=0.5")
    text = (copied / "config.yaml").read_text()
    begin, end = text.index("model:\n"), text.index("activation:\n")
    other = "model:\n  name: mobilenet_v2\n  stem: cifar\n  width: 0.125\n  norm: batch\n  groups: null\n  dropout: 0\n"
    (copied / "config.yaml").write_text((text[:begin] + other + text[end:]).replace("name: elu", "name: relu"))
    (copied / "config.yaml").write_text((copied / "config.yaml").read_text().replace("  alpha: 1.0\n", ""))
    assert find(config).shape == (1, 8, 8)


# Files


def torchvisions(tmp_path: Path, name: str = "resnet18") -> tuple[Path, dict[str, Tensor]]:
    state = getattr(torchvision.models, name)(weights=None).state_dict()
    torch.save(state, tmp_path / f"{name}.pth")
    return tmp_path / f"{name}.pth", state


RESNET = ("model=resnet", "model.depth=18", "model.stem=imagenet")


def test_a_file_takes_mean_and_std_from_the_config_and_says_so(tmp_path: Path) -> None:
    path, state = torchvisions(tmp_path)
    pretrained = found(path, *RESNET)
    assert pretrained.notes == (
        f"finetune.source: {path} says nothing of its preprocessing; taking finetune.mean=[0.485, 0.456, 0.406]"
        " finetune.std=[0.229, 0.224, 0.225]",
    )
    assert (pretrained.channels, pretrained.sides, pretrained.shape) == (3, (224, 224), None)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = torch.rand(2, 3, 4, 4)
    expected = (images - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    assert torch.equal(pretrained.preprocess(images), expected)
    assert isinstance(pretrained.preprocess, Affine)
    one = found(path, *RESNET, "finetune.mean=[0.5]", "finetune.std=[0.25]")
    assert torch.equal(one.preprocess(images), (images - 0.5) / 0.25)
    assert pretrained.hash == one.hash == fingerprint(state)


@pytest.mark.parametrize(
    ("given", "needed", "has"),
    [
        (("model.stem=cifar",), "model.stem=imagenet", "model.stem=cifar"),
        (
            ("model.stem=cifar", "model.shortcut=pad"),
            "model.stem=imagenet model.shortcut=projection",
            "model.stem=cifar model.shortcut=pad",
        ),
    ],
)
def test_switches_that_go_with_a_librarys_weights_are_asked_for(
    given: tuple[str, ...], needed: str, has: str, tmp_path: Path
) -> None:
    path, _ = torchvisions(tmp_path)
    message = rf"^finetune\.source: {path} .*torchvision's resnet.* {needed}, .*{has}; write {needed}$"
    assert re.search(message, refused(path, *RESNET, *given))


def test_channels_are_those_of_the_first_convolution_and_decide_how_many_means(tmp_path: Path) -> None:
    model = build_model(configured("x", "model=cnn"), (1, 28, 28), 10, [])
    torch.save(model.state_dict(), tmp_path / "gray.pth")
    message = (
        r"^finetune\.mean: \[0\.485, 0\.456, 0\.406\] .*gray\.pth .*1 channel; give 1.*'finetune\.mean=\[NUMBER\]'$"
    )
    assert re.search(message, refused(tmp_path / "gray.pth", "model=cnn"))
    pretrained = found(tmp_path / "gray.pth", "model=cnn", "finetune.mean=[0.1]", "finetune.std=[0.3]")
    assert (pretrained.channels, pretrained.sides, pretrained.shape) == (1, None, None)


def test_a_net_of_vectors_has_no_channels(tmp_path: Path) -> None:
    model = build_model(configured("x", "model=mlp"), (8,), 10, [])
    torch.save(model.state_dict(), tmp_path / "v.pth")
    said = refused(tmp_path / "v.pth", "model=mlp")
    assert re.search(r"no images; give 1", said)
    pretrained = found(tmp_path / "v.pth", "model=mlp", "finetune.mean=[0]", "finetune.std=[1]")
    assert pretrained.channels is None
    assert torch.equal(pretrained.preprocess(torch.ones(2, 8)), torch.ones(2, 8))


def test_the_hash_is_of_names_and_values_not_of_their_order() -> None:
    state = {"a": torch.rand(3), "b": torch.ones(2, dtype=torch.int64)}
    assert fingerprint(state) == fingerprint(dict(reversed(state.items())))
    assert len(fingerprint(state)) == 16
    assert fingerprint(state) != fingerprint({**state, "b": torch.zeros(2, dtype=torch.int64)})
    assert fingerprint(state) != fingerprint({"a": state["a"], "c": state["b"]})
    assert fingerprint({"a": torch.ones(2, 3)}) != fingerprint({"a": torch.ones(3, 2)})


def test_a_file_belongs_to_timm_alone_and_a_typo_gets_a_hint(tmp_path: Path) -> None:
    path, _ = torchvisions(tmp_path)
    message = r"^finetune\.file: w\.pth .*finetune\.source=timm:NAME.*write finetune\.source=w\.pth$"
    assert re.search(message, refused(path, *RESNET, "finetune.file=w.pth"))
    typo = tmp_path / "resnt18.pth"
    assert refused(typo, *RESNET) == f"finetune.source: {typo} does not exist; did you mean resnet18.pth?"


# timm


@pytest.mark.parametrize(
    ("source", "overrides", "said"),
    [
        (
            "timm:resnet18.a1_in1k",
            ("model=mlp",),
            r"timm:resnet18\.a1_in1k .*model=mlp; write model=timm model\.architecture=resnet18$",
        ),
        (
            "timm:resnet34",
            ("model=timm",),
            r"timm:resnet34 .*model=timm model\.architecture=resnet18; write model=timm model\.architecture=resnet34$",
        ),
        ("timm:resnt18", ("model=timm",), r"timm:resnt18: 'resnt18' .*did you mean resnet18\?$"),
        ("timm:", ("model=timm",), r"'timm:' .*write timm:NAME, such as timm:resnet18\.a1_in1k$"),
    ],
)
def test_a_name_that_does_not_fit_says_what_to_type(source: str, overrides: tuple[str, ...], said: str) -> None:
    assert re.search(rf"^finetune\.source: {said}", refused(source, *overrides))


# The real files


@pytest.mark.parametrize(
    ("name", "overrides", "shape", "said"),
    [
        (
            "mobilenet_v2_tflite_dequant_fp16.pth",
            ("model=mobilenet_v2", "model.stem=imagenet", "activation=relu6"),
            (3, 224, 224),
            "2,223,872 of 2,223,872 parameters matched (torchvision's names); the head is new; left over:"
            " classifier.1.weight, classifier.1.bias",
        ),
        (
            "squeezenet1_0_tv_fp16.pth",
            ("model=squeezenet", "model.version=1.0", "model.stem=imagenet", "model.norm=none"),
            (3, 224, 224),
            "735,424 of 735,424 parameters matched (torchvision's names); the head is new; left over:"
            " classifier.1.weight, classifier.1.bias",
        ),
        (
            "resnet20-12fca82f.th",
            ("model=resnet", "model.shortcut=pad"),
            (3, 32, 32),
            "269,072 of 269,072 parameters matched (akamaster's names); the head is new; left over: linear.weight,"
            " linear.bias",
        ),
    ],
)
def test_real_weights_match_whole(name: str, overrides: tuple[str, ...], shape: tuple[int, ...], said: str) -> None:
    path = Path(os.environ.get("DLTIPS_TEST_DATA", "")) / "weights" / name
    if not path.is_file():
        pytest.skip("DLTIPS_TEST_DATA holds no weights")
    pretrained = found(path, *overrides)
    assert (pretrained.channels, pretrained.sides) == (3, shape[1:])
    _, report = loaded(path, *overrides, shape=shape)
    assert report == f"{path}: {said}"
