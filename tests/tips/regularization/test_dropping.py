import copy
from typing import Any

import pytest
import torch
from torch import nn

from dltips.errors import ConfigError
from dltips.nets.blocks import Residual
from dltips.tips.model import cnn, mlp, resnet, vgg
from dltips.tips.regularization import Dropout, Dropout2d, StochasticDepth


def small_cnn(**knobs: Any) -> nn.Module:
    """Two stages of 16 and 32 filters."""
    kept = {"kernel_size": 3, "norm": "batch", "groups": None, "pool": "max2", "head": "global", "head_widths": ()}
    return cnn(
        (3, 8, 8), 10, nn.ReLU, **{"widths": (16, 32), "depth": 1, "activation_after_pool": False, **kept, **knobs}
    )


def small_resnet(depth: int = 14) -> nn.Module:
    return resnet(
        (3, 8, 8), 10, nn.ReLU, depth=depth, stem="cifar", width=1.0, shortcut="projection", norm="batch", groups=None
    )


def placed(model: nn.Module) -> list[str]:
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
    return [name for name, layer in model.named_modules() if isinstance(layer, kinds)]


def test_dropout_stands_after_large_hidden_layers_only() -> None:
    model = mlp((8,), 300, nn.ReLU, widths=(256, 255, 300), norm="batch")
    Dropout(p=0.3, min_units=256).prepare(model)
    dropped = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Dropout)}
    assert set(dropped) == {"hidden1.dropout", "hidden3.dropout"}
    assert {layer.p for layer in dropped.values()} == {0.3}
    for name in dropped:
        block = list(dict(model.get_submodule(name.rpartition(".")[0]).named_children()))
        assert block == ["layer", "norm", "activation", "dropout"]


def test_dropout_stands_within_the_stages_of_a_cnn() -> None:
    model = small_cnn(depth=2)
    Dropout(p=0.3, min_units=32).prepare(model)
    assert placed(model) == ["stage2.conv1.dropout", "stage2.conv2.dropout"]
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_dropout_keeps_the_names_of_what_is_trained() -> None:
    plain, dropped = (mlp((8,), 3, nn.ReLU, widths=(256,), norm="batch") for _ in range(2))
    Dropout(p=0.3, min_units=256).prepare(dropped)
    assert list(plain.state_dict()) == list(dropped.state_dict())


def test_dropout_of_nothing_is_the_identity_and_dropout_is_off_in_validation() -> None:
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    model = mlp((8,), 3, nn.ReLU, widths=(256,), norm="none")
    expected = model(inputs)
    for p, in_training in ((0.0, True), (0.5, False)):
        other = copy.deepcopy(model)
        Dropout(p=p, min_units=256).prepare(other)
        assert torch.equal(other.train()(inputs), expected) == in_training
        assert torch.equal(other.eval()(inputs), expected)


def test_dropout_zeroes_a_share_p_and_keeps_the_mean() -> None:
    model = mlp((8,), 3, nn.Sigmoid, widths=(512,), norm="none")
    Dropout(p=0.3, min_units=256).prepare(model)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        outputs = model.get_submodule("hidden1")(torch.zeros(200, 8))
        whole = model.eval().get_submodule("hidden1")(torch.zeros(200, 8))
    assert float((outputs == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(outputs.mean()) == pytest.approx(float(whole.mean()), rel=0.01)


def test_dropout_that_no_layer_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^regularization.dropout.min_units: 256 is reached .* 200 outputs"):
        Dropout(p=0.5, min_units=256).prepare(mlp((8,), 300, nn.ReLU, widths=(100, 200), norm="none"))


def test_dropout_without_a_hidden_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^regularization.dropout: this model has no hidden layer, .* leave dropout"):
        Dropout(p=0.5, min_units=256).prepare(mlp((8,), 300, nn.ReLU, widths=(), norm="none"))


def test_dropout_in_a_model_without_blocks_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 256), nn.ReLU(), nn.Linear(256, 2))
    with pytest.raises(ConfigError, match=r"^regularization.dropout: this model has no blocks"):
        Dropout(p=0.5, min_units=256).prepare(model)


def test_dropout_stands_behind_an_activation_that_comes_after_the_pool() -> None:
    model = small_cnn(depth=2, activation_after_pool=True)
    Dropout(p=0.3, min_units=32).prepare(model)
    assert placed(model) == ["stage2.conv1.dropout", "stage2.dropout"]
    assert list(dict(model.get_submodule("stage2").named_children())) == [
        "conv1",
        "conv2",
        "pool",
        "activation",
        "dropout",
    ]
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_dropout_stands_in_residual_bodies_and_not_in_shortcuts() -> None:
    model = small_resnet(depth=8)
    Dropout(p=0.3, min_units=64).prepare(model)
    assert placed(model) == ["stage3.block1.body.conv1.dropout", "stage3.block1.body.conv2.dropout"]
    assert list(dict(model.get_submodule("stage3.block1.body.conv1").named_children())) == [
        "layer",
        "norm",
        "activation",
        "dropout",
    ]


def test_dropout_stands_in_the_dense_layers_of_a_vgg_but_not_behind_its_head() -> None:
    model = vgg(
        (3, 32, 32), 300, nn.ReLU, depth=11, width=0.1, norm="none", groups=None, head="dense", head_widths=(256, 300)
    )
    Dropout(p=0.3, min_units=256).prepare(model)
    assert placed(model) == ["hidden1.dropout", "hidden2.dropout"]


def test_dropout2d_stands_after_convolutions_alone() -> None:
    model = small_cnn(head_widths=(64,))
    Dropout2d(p=0.3, min_units=32).prepare(model)
    assert placed(model) == ["stage2.conv1.dropout2d"]


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 40, 3), nn.Conv1d(2, 40, 3)])
def test_dropout2d_zeroes_whole_channels_a_share_p_of_them_and_keeps_the_mean(layer: nn.Module) -> None:
    block = nn.Sequential(layer, nn.Sigmoid())
    model = nn.Sequential(block, nn.Flatten(), nn.LazyLinear(3))
    inputs = torch.zeros(200, 2, *(6,) * (layer.get_parameter("weight").dim() - 2))
    model(inputs)
    whole = block(inputs).detach()
    Dropout2d(p=0.25, min_units=40).prepare(model)
    outputs = block(inputs).detach()
    stays = (outputs != 0).flatten(2)
    assert torch.equal(stays.any(2), stays.all(2))
    assert float(stays.all(2).float().mean()) == pytest.approx(0.75, abs=0.015)
    torch.testing.assert_close(outputs[outputs != 0], (whole / 0.75)[outputs != 0])
    assert len(stays.all(2).unique(dim=0)) > 190  # each sample draws its own
    assert torch.equal(model.eval()[0](inputs), whole)


@pytest.mark.parametrize("min_units", [1, 300])
def test_dropout2d_in_a_model_without_convolutions_is_refused(min_units: int) -> None:
    model = mlp((8,), 3, nn.ReLU, widths=(300,), norm="none")
    with pytest.raises(ConfigError, match=r"^regularization.dropout2d: this model has no hidden convolutions; write"):
        Dropout2d(p=0.5, min_units=min_units).prepare(model)


def test_dropout2d_that_no_convolution_reaches_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^regularization.dropout2d.min_units: 64 is reached .* 32 outputs"):
        Dropout2d(p=0.5, min_units=64).prepare(small_cnn(head_widths=(64,)))


def test_both_dropouts_stand_side_by_side() -> None:
    model = small_cnn()
    for tip in (Dropout2d(p=0.1, min_units=32), Dropout(p=0.1, min_units=32)):
        tip.prepare(model)
    assert placed(model) == ["stage2.conv1.dropout2d", "stage2.conv1.dropout"]


def test_stochastic_depth_grows_linearly_with_depth() -> None:
    model = small_resnet()
    StochasticDepth(p=0.6).prepare(model)
    drops = [module.drop for module in model.modules() if isinstance(module, Residual)]
    assert drops == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_stochastic_depth_leaves_out_as_many_bodies_as_it_says_and_keeps_the_mean() -> None:
    model = small_resnet(depth=8)
    last = [module for module in model.modules() if isinstance(module, Residual)][-1]
    last.body, last.shortcut, last.activation = nn.Sequential(nn.Identity()), nn.Flatten(0, 0), nn.Identity()
    StochasticDepth(p=0.3).prepare(model)
    inputs = torch.ones(4000, 1, 1, 1)
    outputs = last.train()(inputs)
    assert sorted(outputs.unique().tolist()) == pytest.approx([1.0, 1.0 + 1 / 0.7])
    assert float((outputs == 1).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(last.eval()(inputs), 2 * inputs)


def test_stochastic_depth_without_residual_blocks_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^regularization.stochastic_depth: this model has no residual blocks .* write"
        r" model=resnet \(a timm net takes model.drop_path_rate\)$",
    ):
        StochasticDepth(p=0.5).prepare(small_cnn())
