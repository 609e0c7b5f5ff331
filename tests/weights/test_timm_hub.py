"""Weights that timm knows by name: its record, its cache, a local file."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.tips.preprocessing import save
from dltips.train.build import build_model
from dltips.weights import timm_hub
from dltips.weights.match import load_into
from dltips.weights.source import Pretrained, find, fingerprint

TIMM = ("model=timm", "model.architecture=test_efficientnet")


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


def steps(pretrained: Pretrained) -> dict[str, Tensor]:
    ((kind, buffers),) = save(pretrained.preprocess)
    assert kind == "Affine"
    return buffers


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that nobody serves: a port that was just given back."""
    from huggingface_hub import constants

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_a_local_file_with_timms_record(tmp_path: Path) -> None:
    net = timm.create_model("test_efficientnet")
    torch.save({"state_dict": {f"module.{name}": each for name, each in net.state_dict().items()}}, tmp_path / "w.pth")
    pretrained = found("timm:test_efficientnet.r160_in1k", *TIMM, f"finetune.file={tmp_path / 'w.pth'}")
    record = timm.get_pretrained_cfg("test_efficientnet")
    assert pretrained.origin == f"timm:test_efficientnet.r160_in1k ({tmp_path / 'w.pth'})"
    assert (pretrained.channels, pretrained.sides, pretrained.shape) == (3, (160, 160), None)
    assert steps(pretrained)["shift"].flatten().tolist() == pytest.approx(record.mean)
    assert steps(pretrained)["scale"].flatten().tolist() == pytest.approx(record.std)
    state, report = loaded("timm:test_efficientnet", *TIMM, f"finetune.file={tmp_path / 'w.pth'}", shape=(3, 160, 160))
    assert "(timm's names); the head is new; left over: classifier.weight, classifier.bias" in report
    assert torch.equal(state["conv_stem.weight"], net.state_dict()["conv_stem.weight"])


def test_a_file_with_its_authors_names_is_read_by_timms_own_filter(tmp_path: Path) -> None:
    state = timm.create_model("test_convnext").state_dict()
    renames = (  # timm's -> facebookresearch/ConvNeXt's
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"\.blocks\.", "."),
        (r"conv_dw", "dwconv"),
        (r"mlp\.fc", "pwconv"),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    theirs = {}
    for name, tensor in state.items():
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    torch.save({"model": theirs}, tmp_path / "w.pth")
    draws = torch.get_rng_state()
    _, read = timm_hub.state_of("test_convnext", str(tmp_path / "w.pth"))
    assert torch.equal(draws, torch.get_rng_state())  # a net was built for it, and the run's draws stay the same
    assert theirs.keys() != state.keys() == read.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_a_download_of_before_is_found_in_the_cache(no_cache: Path) -> None:
    from safetensors.torch import save_file

    state = timm.create_model("test_efficientnet").state_dict()
    folder = no_cache / "hub" / "models--timm--test_efficientnet.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    pretrained = found("timm:test_efficientnet", *TIMM)
    assert pretrained.origin == "timm:test_efficientnet.r160_in1k"
    assert pretrained.hash == fingerprint(state)


@pytest.mark.parametrize("others", [True, False])
def test_offline_and_not_cached_is_one_line_and_no_download_is_tried(
    others: bool, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where something of that architecture is in the cache, so that timm has to be asked for the tag."""

    def downloads(*_: Any, **__: Any) -> Any:
        raise AssertionError("45 seconds of retries")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", downloads)
    if others:
        (no_cache / "hub" / "models--timm--test_efficientnet.other").mkdir(parents=True)
    said = refused("timm:test_efficientnet", *TIMM)
    tag, where = (".r160_in1k", ", from http://127.0.0.1:") if others else ("", "), or go online once")
    assert re.match(rf"finetune\.source: timm:test_efficientnet{tag} .*cache.* 127\.0\.0\.1 .*reached; give", said)
    assert where in said and said.endswith("), or go online once")


def test_the_users_offline_switch_is_honoured(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = (
        r"^finetune\.source: timm:test_efficientnet .*cache.* HF_HUB_OFFLINE .*give its file \(finetune\.file=FILE\)$"
    )
    assert re.search(message, refused("timm:test_efficientnet", *TIMM))


def test_a_tag_or_an_architecture_without_weights_says_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"^finetune\.source: timm .*resnet18\.foo; .*tags of resnet18 are a1_in1k, a2_"
    ):
        timm_hub.record("resnet18.foo")
    bare = sorted(set(timm.list_models()) - {name.partition(".")[0] for name in timm.list_pretrained()})[0]
    with pytest.raises(ConfigError, match=rf"^finetune\.source: timm .*{bare}; give a file"):
        timm_hub.record(bare)
