"""Every model of ours, and nets of timm and torchvision: what holds for their stages."""

import copy
import functools
from collections.abc import Iterable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from dltips.catalog import source_reader
from dltips.catalog.registry import Tip
from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.errors import ConfigError
from dltips.nets import stages

# model=... with what else is to be tried of it -> a sample's shape; those that are not named take (3, 32, 32)
SHAPES = {
    "mlp": (1, 8, 8),
    "svm": (1, 8, 8),
    "lstm": (1, 8, 8),
    "gru": (1, 2000),
    "audio_cnn": (1, 8000),
    "mlp model.norm=batch": (20,),
    "mlp model.widths=[]": (20,),
    "gru model.output=mean model.bidirectional=true model.layers=2": (3, 8, 8),
    "cnn model.head=dense model.head_widths=[16,8]": (3, 16, 16),
    "cnn activation=prelu model.norm=group": (3, 16, 16),
    "airbench activation=prelu": (3, 32, 32),
    "resnet model.depth=18 model.stem=imagenet": (3, 64, 64),
    "squeezenet model.stem=imagenet": (3, 64, 64),
    "mobilenet_v2 model.stem=imagenet": (3, 64, 64),
}
OURS = [*(name for name in source_reader.options("model") if name != "timm"), *(name for name in SHAPES if " " in name)]
# architecture -> pixels a side
TIMM = {
    "resnet18": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_050": 64,
    "test_efficientnet": 64,
    "convnext_atto": 64,
    "test_vit": 160,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "regnety_002": 64,
    "densenet121": 64,
    "mixer_s32_224": 64,
    "maxvit_rmlp_pico_rw_256": 64,
    "ghostnet_050": 64,
    "resnetv2_18": 64,  # its classifier is a convolution
    "pvt_v2_b0": 64,  # its patch embedding is (N, H, W, C), its stages (N, C, H, W)
}
TORCHVISION = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5")
NETS = [*OURS, *(f"timm:{name}" for name in TIMM), *(f"torchvision:{name}" for name in TORCHVISION)]
UNCUT = {"timm:deit_tiny_distilled_patch16_224"}


@functools.cache
def tips(name: str) -> tuple[Tip, Tip]:
    entry = source_reader.entry("model", name.split()[0])
    typed = [*(override for override in entry.at_home if override.startswith("model.")), *name.split()[1:]]
    config = validate(compose([f"model={name.split()[0]}", *dict.fromkeys(typed)])[0])
    return config.tip("model"), config.tip("activation")


def shape_of(name: str) -> tuple[int, ...]:
    if name.startswith("timm:"):
        side = TIMM[name.removeprefix("timm:")]
        return (3, side, side)
    return (3, 64, 64) if name.startswith("torchvision:") else SHAPES.get(name, (3, 32, 32))


def build(name: str) -> nn.Module:
    """In eval mode, its batch norms with statistics of their own."""
    library, _, architecture = name.rpartition(":")
    if library == "timm":
        record = timm.get_pretrained_cfg(architecture)
        fixed = record is not None and record.fixed_input_size
        size: dict[str, Any] = {"img_size": shape_of(name)[1:]} if fixed else {}
        net: nn.Module = timm.create_model(architecture, num_classes=7, **size)
    elif library == "torchvision":
        net = torchvision.models.get_model(architecture, num_classes=7)
    else:
        model, activation = tips(name)
        net = model(shape_of(name), 7, activation)
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    if callable(look := getattr(net, "look", None)):
        look(torch.randn(32, *shape_of(name)))
    if callable(fit := getattr(net, "fit", None)):
        fit(torch.randn(32, *shape_of(name)), torch.arange(32) % 7)
    return net.eval()


def samples(name: str) -> Tensor:
    return torch.randn(2, *shape_of(name), generator=torch.Generator().manual_seed(1))


def names_of(net: nn.Module) -> list[str]:
    return [stage.name for stage in stages.stages_of(net)]


@pytest.fixture(params=NETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_tensor_belongs_to_one_stage_and_no_name_comes_twice(name: str) -> None:
    net = build(name)
    found = stages.stages_of(net)
    assert sorted(tensor for stage in found for tensor in stages.tensors_of(net, stage)) == sorted(net.state_dict())
    assert len({stage.name for stage in found}) == len(found)
    paths = [path for stage in found for path in stage.modules]
    assert len(set(paths)) == len(paths)
    tensors = {
        parameter for stage in found for part in stages.modules_of(net, stage) for parameter in part.parameters()
    }
    direct = set(net.parameters(recurse=False))  # a class token
    assert tensors | direct == set(net.parameters())
    assert {key for key, value in net.named_parameters() if value in direct} <= set(stages.tensors_of(net, found[0]))


def test_the_head_is_the_classifier_and_the_order_that_of_the_forward_pass(name: str) -> None:
    net = build(name)
    found = stages.stages_of(net)
    begun: list[str] = []
    for stage in found:
        for module in stages.modules_of(net, stage):
            module.register_forward_pre_hook(lambda *_, stage=stage: begun.append(stage.name))
    net(samples(name))
    assert list(dict.fromkeys(begun)) == [stage.name for stage in found]
    places = [names_of(net).index(stage) for stage in begun]
    assert places == sorted(places)
    weights = [net.state_dict()[key] for key in stages.tensors_of(net, found[-1])]
    assert all(name == "svm" or len(weight) == 7 for weight in weights)


def test_body_and_head_are_the_net_to_the_bit_and_share_its_parameters(name: str) -> None:
    net, inputs = build(name), samples(name)
    keys = list(net.state_dict())
    if name in UNCUT:
        with pytest.raises(
            ConfigError, match=r"^finetune\.views: VisionTransformerDistilled .*write finetune\.views=0$"
        ):
            stages.cut(net.train())
        assert all(part.training for part in net.modules())
        return
    body, head = stages.cut(net)
    features = body(inputs)
    assert torch.equal(head(features), net(inputs))
    theirs = [*body.parameters(), *head.parameters()]
    assert len(theirs) == len(set(theirs)) and set(theirs) == set(net.parameters())
    assert list(net.state_dict()) == keys
    last = stages.stages_of(net)[-1]
    assert sum(value.numel() for value in head.state_dict().values()) == sum(
        net.state_dict()[key].numel() for key in stages.tensors_of(net, last)
    )
    head(body(inputs)).sum().backward()
    assert [key for key, value in net.named_parameters() if value.grad is None] == []


def test_a_cut_net_keeps_its_modes(name: str) -> None:
    net = build(name)
    if name in UNCUT:
        return
    net.train()
    frozen = stages.modules_of(net, stages.stages_of(net)[0])[0].eval()
    modes = [part.training for part in net.modules()]
    body, head = stages.cut(net)
    assert [part.training for part in net.modules()] == modes
    assert name == "svm" or (body.training and head.training and not frozen.training)


def seen(net: nn.Module, module: nn.Module, inputs: Tensor) -> Tensor:
    """What a hook on a module sees, copied before anything changes it in place."""
    found: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: found.append(output.clone()))
    net(inputs)
    handle.remove()
    return found[0]


def called(net: nn.Module, paths: Iterable[str], inputs: Tensor) -> list[str]:
    """The modules that one forward pass calls, in order."""
    found: list[str] = []
    handles = [
        net.get_submodule(path).register_forward_hook(lambda *_, path=path: found.append(path)) for path in paths
    ]
    net(inputs)
    for handle in handles:
        handle.remove()
    return found


def test_up_to_a_stage_is_what_a_hook_on_its_last_module_sees(name: str) -> None:
    net, inputs = build(name), samples(name)
    keys = list(net.state_dict())
    kept: list[str] = []
    with torch.no_grad():
        for stage in stages.stages_of(net):
            part = stages.up_to(net, stage.name)
            kept += stages.tensors_of(net, stage)
            assert {key.removeprefix("net.") for key in part.state_dict()} == set(kept)
            last = called(net, stage.modules, inputs)[-1]  # the net may leave out an identity
            assert torch.equal(part(inputs), seen(net, net.get_submodule(last), inputs))
    assert list(net.state_dict()) == keys and not any(part._forward_hooks for part in net.modules())


def test_up_to_a_stage_made_anew_takes_the_state_dict(name: str) -> None:
    net, inputs = build(name), samples(name)
    middle = names_of(net)[len(names_of(net)) // 2]
    part = stages.up_to(net, middle)
    with torch.no_grad():
        outputs = part(inputs)
        again = stages.up_to(build(name), middle).eval()
        if name != "svm":
            assert not torch.equal(again(inputs), outputs)
        again.load_state_dict(part.state_dict())
        twin = copy.deepcopy(part)
        assert torch.equal(again(inputs), outputs) and torch.equal(twin(inputs), outputs)
        for parameter in part.parameters():
            parameter.zero_()
        assert torch.equal(twin(inputs), outputs)


def test_one_pass_gives_what_each_stage_s_own_net_gives_averaged(name: str) -> None:
    net, inputs = build(name), samples(name)
    with torch.no_grad():
        found = stages.outputs(net, inputs, names_of(net))
        pool = stages.pool_of(net)
        assert list(found) == names_of(net)
        for stage in names_of(net):
            raw = stages.up_to(net, stage)(inputs)
            assert torch.equal(pool(raw), found[stage])
            assert found[stage].dim() == 2 and len(found[stage]) == 2
        assert {key: len(value) for key, value in stages.shapes(net, inputs).items()} == {
            key: stages.up_to(net, key)(inputs).dim() - 1 for key in names_of(net)
        }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", ["stem", "stage1", "stage2", "stage3", "head"]),
        ("squeezenet", ["stem", "stage1", "stage2", "stage3", "head"]),
        ("airbench activation=prelu", ["whiten", "stage1", "stage2", "stage3", "head"]),
        ("mlp", ["hidden1", "hidden2", "head"]),
        ("mlp model.widths=[]", ["head"]),
        ("svm", ["head"]),
        ("timm:resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("timm:test_efficientnet", ["conv_stem", *(f"blocks.{n}" for n in range(5)), "conv_head", "classifier"]),
        ("timm:convnext_atto", ["stem", *(f"stages.{n}" for n in range(4)), "head.fc"]),
        ("timm:swin_tiny_patch4_window7_224", ["patch_embed", *(f"layers.{n}" for n in range(4)), "head.fc"]),
        ("timm:vit_tiny_patch16_224", ["patch_embed", *(f"blocks.{n}" for n in range(12)), "head"]),
        ("timm:regnety_002", ["stem", "s1", "s2", "s3", "s4", "head.fc"]),
        ("torchvision:mobilenet_v2", [*(f"features.{n}" for n in range(19)), "classifier.1"]),
    ],
)
def test_stages_have_the_names_that_users_of_the_library_know(name: str, expected: list[str]) -> None:
    assert names_of(build(name)) == expected


def test_norms_activations_and_pools_join_the_stage_before_them() -> None:
    found = stages.stages_of(build("timm:resnet18"))
    assert [stage.modules for stage in found[:2]] == [("conv1", "bn1", "act1", "maxpool"), ("layer1",)]
    assert stages.stages_of(build("mlp"))[0].modules == ("flatten", "hidden1")
    assert stages.stages_of(build("squeezenet"))[-1].modules == ("head", "pool", "flatten")
    assert stages.stages_of(build("airbench activation=prelu"))[0].modules == ("whiten", "activation")
    assert "features.denseblock1" in names_of(build("timm:densenet121"))


def test_a_wrong_name_gets_the_nearest_one() -> None:
    net = build("timm:resnet18")
    found = stages.stages_of(net)
    assert stages.find_stage(found, "layer4", "finetune.stage", "resnet18") == found[4]
    with pytest.raises(ConfigError, match=r"^finetune\.stage: 'layr4' .*resnet18; did you mean layer4\?$"):
        stages.find_stage(found, "layr4", "finetune.stage", "resnet18")
    with pytest.raises(ConfigError, match=r"^finetune\.stage: 'x' .*ResNet; .*: conv1, fc, layer1, la"):
        stages.up_to(net, "x")
    with pytest.raises(ConfigError, match=r"^finetune\.stage: 'layr1' .*ResNet; did you mean layer1"):
        stages.outputs(net, samples("timm:resnet18"), ["layr1"])


def test_one_pass_ends_behind_the_last_stage_that_is_asked_for() -> None:
    net = build("timm:resnet18")
    begun: list[str] = []
    for path in ("layer1", "layer2", "layer3", "fc"):
        net.get_submodule(path).register_forward_hook(lambda *_, path=path: begun.append(path))
    assert list(stages.outputs(net, samples("timm:resnet18"), ["layer2", "conv1"])) == ["layer2", "conv1"]
    assert begun == ["layer1", "layer2"]
    assert stages.outputs(net, samples("timm:resnet18"), []) == {}


class Changing(nn.Module):
    """Its second layer's output is changed in place before the head sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.second = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.second(self.first(inputs).relu_()).relu_())
        return outputs


def test_a_stage_s_output_is_what_it_was_before_it_was_changed_in_place() -> None:
    net, inputs = Changing(), torch.randn(4, 5)
    with torch.no_grad():
        expected = net.second(net.first(inputs).relu())
        assert (expected < 0).any()
        assert torch.equal(stages.up_to(net, "second")(inputs), expected)
        assert torch.equal(stages.outputs(net, inputs, ["second"])["second"], expected)


def test_a_net_for_vectors_is_cut() -> None:
    net, inputs = Changing(), torch.randn(4, 5)
    body, head = stages.cut(net)
    assert head is net.head and torch.equal(head(body(inputs)), net(inputs))


class Backwards(Changing):
    """Runs its layers in another order than they are named."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.first(self.second(inputs)))
        return outputs


def test_a_stage_that_is_called_behind_a_dropped_one_is_refused() -> None:
    net = Backwards()
    net.first, net.second = nn.Linear(6, 6), nn.Linear(5, 6)
    inputs = torch.randn(4, 5)
    with pytest.raises(ConfigError, match=r"^finetune\.stage: Backwards .*first.*take another stage$"):
        stages.up_to(net, "first")(inputs)
    assert list(stages.shapes(net, inputs)) == ["second", "first", "head"]
    assert torch.equal(stages.outputs(net, inputs, ["first"])["first"], net.first(net.second(inputs)))


def test_a_net_that_changes_its_classifier_s_outputs_is_not_cut() -> None:
    net = torchvision.models.squeezenet1_1(num_classes=7)  # an activation and a pool follow
    with pytest.raises(ConfigError, match=r"^finetune\.views: SqueezeNet .*finetune\.views=0$"):
        stages.cut(net)
    zeroed: nn.Module = timm.create_model("test_vit", num_classes=7)
    nn.init.zeros_(zeroed.get_parameter("head.weight"))
    body, _ = stages.cut(zeroed.eval())  # the features are looked at as well
    assert body(torch.randn(2, 3, 160, 160)).shape == (2, 64)
