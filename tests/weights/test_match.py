"""Weights come into a net to the bit, whatever a file calls them; the head stays new; half a match is refused."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.tips.preprocessing import Affine
from dltips.train.build import build_model
from dltips.weights.match import load_into
from dltips.weights.source import Pretrained

RESNET = ("model=resnet", "model.depth=18", "model.stem=imagenet")


def configured(*overrides: str) -> Config:
    return validate(compose(["finetune=full", *overrides])[0])


def net(config: Config, shape: tuple[int, ...] = (3, 64, 64), classes: int = 2) -> nn.Module:
    return build_model(config, shape, classes, [])


def weights(state: dict[str, Tensor], origin: str = "w.pth") -> Pretrained:
    step = Affine(shift=torch.zeros(()), scale=torch.ones(()))
    return Pretrained(origin, state, "", step, 3, None, None)


def drawn(model: nn.Module) -> dict[str, Tensor]:
    """Its state dict, with statistics that are not those of a new net."""
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def load(
    state: dict[str, Tensor], config: Config, shape: tuple[int, ...] = (3, 64, 64), **common: Any
) -> tuple[nn.Module, str]:
    model = net(config, shape)
    wanted = replace(config.common["finetune"](), **common)
    return model, load_into(weights(state), model, config.tip("model"), wanted).report


def refused(state: dict[str, Tensor], config: Config, shape: tuple[int, ...] = (3, 64, 64), **common: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(state, config, shape, **common)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    return drawn(torchvision.models.resnet18(weights=None))


def test_torchvisions_net_and_ours_give_the_same_features(resnet18: dict[str, Tensor]) -> None:
    theirs = torchvision.models.resnet18(weights=None)
    model, report = load(theirs.state_dict(), configured(*RESNET))
    assert report == (
        "w.pth: 11,176,512 of 11,176,512 parameters matched (torchvision's names); the head is new; left over:"
        " fc.weight, fc.bias"
    )
    theirs.fc, head = nn.Identity(), model.get_submodule("head")
    model.head = nn.Identity()  # type: ignore[assignment]
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), theirs.eval()(images))
    assert isinstance(head, nn.Linear) and head.out_features == 2


def test_all_but_the_head_is_the_file_to_the_bit_and_the_head_stays(resnet18: dict[str, Tensor]) -> None:
    config = configured(*RESNET)
    before = net(config).state_dict()
    model, _ = load(resnet18, config)
    after = model.state_dict()
    assert torch.equal(after["stem.norm.running_var"], resnet18["bn1.running_var"])
    assert torch.equal(after["stage4.block2.body.conv2.layer.weight"], resnet18["layer4.1.conv2.weight"])
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if not name.startswith("head.") and not name.endswith("tracked")}
    assert {name for name in after if name.startswith("head.")} == {"head.weight", "head.bias"}


def test_a_head_of_as_many_classes_is_new_all_the_same(resnet18: dict[str, Tensor]) -> None:
    config = configured(*RESNET)
    model = net(config, classes=1000)
    before = model.get_parameter("head.weight").clone()
    assert before.shape == resnet18["fc.weight"].shape
    load_into(weights(resnet18), model, config.tip("model"), config.common["finetune"]())
    assert torch.equal(model.get_parameter("head.weight"), before)


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "net.", "model.", "body.net.", "model.backbone."])
def test_a_prefix_is_stripped_where_a_head_stands_beside_it(prefix: str, resnet18: dict[str, Tensor]) -> None:
    given = {f"{prefix}{name}": tensor for name, tensor in resnet18.items() if not name.startswith("fc")}
    model, report = load({**given, "classifier.weight": torch.ones(3)}, configured(*RESNET))
    assert "11,176,512 of 11,176,512" in report and report.endswith("; left over: classifier.weight")
    assert torch.equal(model.state_dict()["stem.layer.weight"], resnet18["conv1.weight"])


def test_our_own_names_need_no_layout() -> None:
    config = configured("model=mlp")
    given = drawn(net(config, (8,), 10))
    model, report = load(given, config, (8,))
    assert "(dltips' names); the head is new; left over: head.weight, head.bias" in report
    assert torch.equal(model.state_dict()["hidden1.layer.weight"], given["hidden1.layer.weight"])


def test_keys_rename_in_their_order(resnet18: dict[str, Tensor]) -> None:
    renames = {"stem": "first", "stage": "part", "layer.weight": "kernel"}
    config = configured(*RESNET)
    given = drawn(net(config))
    for ours, other in renames.items():
        given = {name.replace(ours, other): tensor for name, tensor in given.items()}
    assert "resnet's 11,176,512 parameters" in refused(given, config)
    keys = ("kernel$->layer.weight", "^part->stage", "^first->stem")
    _, report = load(given, config, keys=keys)
    assert "11,176,512 of 11,176,512" in report
    # the second undoes what the first has done
    chained = ("^part->PART", "^PART->stage", "kernel$->layer.weight", "^first->stem")
    assert load(given, config, keys=chained)[1] == report


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("(->x", r"^finetune\.keys: '\(->x' .*regular expression.*\(missing \), unterminated"),
        (r"conv->\1", r"^finetune\.keys: 'conv->\\1' .*regular expression.*\(invalid group"),
        (
            "conv",
            r"^finetune\.keys: 'conv' .*PATTERN->REPLACEMENT; write 'finetune\.keys=\[",
        ),
        ("nothing->x", r"^finetune\.keys: 'nothing->x' .*w\.pth \(conv1\.weight, bn1\.weight,"),
        (r"\d->", r"^finetune\.keys: .* tensors .*name of another"),
    ],
)
def test_a_bad_key_is_refused(key: str, said: str, resnet18: dict[str, Tensor]) -> None:
    assert re.search(said, refused(resnet18, configured(*RESNET), keys=(key,)))


def test_keys_can_be_typed() -> None:
    """With anchors and backslashes, as a shell hands them over."""
    config = configured(r"""finetune.keys=["^layer\.(\d)->stage\1","kernel$->layer.weight"]""")
    assert config.common["finetune"]().keys == (r"^layer\.(\d)->stage\1", "kernel$->layer.weight")


def test_below_min_match_it_says_how_much_what_and_which_net(resnet18: dict[str, Tensor]) -> None:
    config = configured("model=resnet", "model.depth=34", "model.stem=imagenet")
    model = net(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        ConfigError,
        match=(
            r"^finetune\.source: w\.pth .*11,176,512 of resnet's 21,284,672 parameters \(53%\).*min_match.*90%;"
            r" .*stage1\.block3\.body\.conv1\.layer\.weight, .* and 45 more; .*write model=resnet model\.depth=18"
            r" model\.stem=imagenet$"
        ),
    ):
        load_into(weights(resnet18), model, config.tip("model"), config.common["finetune"]())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_other_shapes_are_shown_by_example(resnet18: dict[str, Tensor]) -> None:
    said = refused(resnet18, configured(*RESNET, "model.width=0.5"))
    assert "of another shape: stem.layer.weight 64x3x7x7 for 32x3x7x7, stem.norm.weight 64 for 32" in said
    assert said.endswith("write model=resnet model.depth=18 model.width=1.0 model.stem=imagenet")


def test_above_min_match_what_is_missing_is_said(resnet18: dict[str, Tensor]) -> None:
    given = {name: tensor for name, tensor in resnet18.items() if not name.startswith("bn1.")}
    _, report = load({**given, "conv1.weight": torch.ones(64, 4, 7, 7)}, configured(*RESNET))
    assert "11,166,976 of 11,176,512 parameters matched" in report
    assert (
        "; missing, and new as well: stem.layer.weight, stem.norm.weight, stem.norm.bias; without statistics" in report
    )
    assert "which begin anew: stem.norm.running_mean, stem.norm.running_var; left over: conv1.weight, fc" in report
    assert "(100%), and finetune.min_match asks for 100%" in refused(given, configured(*RESNET), min_match=1.0)


def test_counters_of_batch_norm_may_be_missing_silently(resnet18: dict[str, Tensor]) -> None:
    given = {name: tensor for name, tensor in resnet18.items() if not name.endswith("num_batches_tracked")}
    assert load(given, configured(*RESNET))[1] == load(resnet18, configured(*RESNET))[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_unless_the_head_has_them(
    value: float, resnet18: dict[str, Tensor]
) -> None:
    spoilt = torch.full_like(resnet18["bn1.running_mean"], value)
    message = refused({**resnet18, "bn1.running_mean": spoilt}, configured(*RESNET))
    assert re.search(r"^finetune\.source: w\.pth .*not finite .*stem\.norm\.running_mean; .*take another one$", message)
    load({**resnet18, "fc.bias": torch.full((1000,), value)}, configured(*RESNET))


def test_timms_nets_have_timms_names() -> None:
    import timm

    config = configured("model=timm", "model.architecture=test_efficientnet")
    given = drawn(timm.create_model("test_efficientnet"))
    model, report = load(given, config)
    assert "(timm's names); the head is new; left over: classifier.weight, classifier.bias" in report
    assert torch.equal(model.state_dict()["conv_stem.weight"], given["conv_stem.weight"])
