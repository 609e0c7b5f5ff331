"""Other libraries' names for a net's tensors become ours."""

import torch
from torch import nn
from torch.nn import functional

from dltips.nets.blocks import block
from dltips.nets.key_maps import KeyMap, key_maps_of

THEIRS = KeyMap(
    name="theirs",
    renames=((r"^layer(\d)\.", r"stage\1."), (r"\.conv\.", ".layer."), (r"\d$", lambda found: str(int(found[0]) + 1))),
    size=224,
    settings={"model.depth": 18},
)


def test_renames_are_applied_to_every_key_in_their_order() -> None:
    assert THEIRS.ours("layer3.conv.weight") == "stage3.layer.weight"
    assert THEIRS.ours("head.4") == "head.5"
    assert THEIRS.ours("head.weight") == "head.weight"


def test_a_function_has_its_maps_in_the_order_in_which_they_stand_above_it() -> None:
    other = KeyMap(name="other", renames=(), size=32)

    @THEIRS
    @other
    def net() -> nn.Module:
        return nn.Identity()

    assert key_maps_of(net) == (THEIRS, other)
    assert key_maps_of(lambda: None) == ()


def test_tensors_are_handed_on_under_our_names() -> None:
    state = {"layer1.conv.weight": torch.ones(2), "fc.weight": torch.zeros(3)}
    ours = THEIRS.translated(state)
    assert list(ours) == ["stage1.layer.weight", "fc.weight"]
    assert ours["fc.weight"] is state["fc.weight"] and ours["stage1.layer.weight"] is state["layer1.conv.weight"]


def test_a_bias_in_front_of_a_batch_norm_moves_its_mean_and_others_stay() -> None:
    """norm(W x + b) is norm(W x) with b off the running mean: the outputs are the same."""
    theirs = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1)).eval()
    theirs[1].running_mean.normal_()
    names = KeyMap(
        name="theirs",
        renames=((r"^0\.", "first.layer."), (r"^1\.", "first.norm."), (r"^2\.", "second.layer.")),
        size=8,
    )
    ours = nn.ModuleDict(
        {
            "first": block(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), None),
            "second": block(nn.Conv2d(4, 3, 1), None, None),
        }
    ).eval()
    ours.load_state_dict(names.translated(theirs.state_dict()))  # strict: the second bias is there
    inputs = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(ours["second"](ours["first"](inputs)), theirs(inputs))
    assert functional.mse_loss(theirs[1].running_mean, ours["first"].norm.running_mean) > 0  # theirs is not touched
