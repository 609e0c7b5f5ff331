import pytest
import torch
from torch import nn

from dltips.net import Net
from dltips.tips.finetune import Plan, none


def small_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def test_none_trains_everything() -> None:
    model = small_model()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    none(model, torch.zeros(1, 4)).apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("frozen", [("0.weight",), ("0.weight", "0.bias"), ("2.bias",)])
def test_a_plan_freezes_what_it_names_and_nothing_else(frozen: tuple[str, ...]) -> None:
    model = small_model()
    Plan(frozen).apply(model)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert still == set(frozen)
    assert {segment.name for segment in Net(model).segments} == {"0.weight", "0.bias", "2.weight", "2.bias"} - still
    Plan().apply(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
