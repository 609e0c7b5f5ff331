import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.main import main
from dltips.tips.model import svm
from dltips.tips.model.svm import SupportVectorMachine


def digits(count: int = 300) -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data[:count] / 16).float().reshape(-1, 1, 8, 8), torch.tensor(data.target[:count])


def machine(classes: int = 10, **knobs: Any) -> SupportVectorMachine:
    usual = {"kernel": "rbf", "C": 1.0, "gamma": "scale"}
    made = svm((1, 8, 8), classes, nn.ReLU, **{**usual, **knobs})
    assert isinstance(made, SupportVectorMachine)
    return made


@pytest.mark.parametrize("knobs", [{}, {"C": 5.0, "gamma": 0.02}, {"kernel": "linear", "C": 0.1}])
def test_the_outputs_are_scikit_learn_s_decision_values(knobs: dict[str, Any]) -> None:
    inputs, targets = digits()
    model = machine(**knobs)
    model.fit(inputs[:200], targets[:200])
    theirs = OneVsRestClassifier(SVC(**knobs)).fit(inputs[:200].flatten(1).numpy(), targets[:200])
    expected = torch.from_numpy(theirs.decision_function(inputs.flatten(1).numpy())).float()
    assert torch.allclose(model(inputs), expected, atol=1e-4)


def test_only_the_temperature_trains_and_it_multiplies_the_values() -> None:
    inputs, targets = digits()
    model = machine()
    model.fit(inputs, targets)
    assert [name for name, _ in model.named_parameters()] == ["temperature"]
    before = model(inputs)
    nn.functional.cross_entropy(before, targets).backward()
    assert model.temperature.grad is not None and model.temperature.grad.item() < 0  # surer is better
    with torch.no_grad():
        model.temperature.fill_(2.0)
    assert torch.equal(model(inputs), 2 * before)


def test_two_classes_are_mirror_images() -> None:
    inputs, targets = digits()
    model = machine(2)
    model.fit(inputs, targets % 2)
    first, second = model(inputs).T
    assert torch.allclose(first, -second, atol=1e-3)


def test_a_class_without_a_sample_is_never_chosen() -> None:
    inputs, targets = digits()
    model = machine(11)
    model.fit(inputs, targets)
    assert torch.equal(model(inputs)[:, 10], torch.full((300,), -1.0))
    assert (model(inputs).argmax(1) != 10).all()
    alone = machine(3)
    alone.fit(inputs, torch.ones_like(targets))
    assert (alone(inputs).argmax(1) == 1).all()


def test_a_fresh_machine_takes_the_state_of_a_fitted_one() -> None:
    inputs, targets = digits()
    model = machine()
    model.fit(inputs, targets)
    nested = nn.Sequential(copy.deepcopy(model))
    for source, fresh in ((model, machine()), (nested, nn.Sequential(machine()))):
        fresh.load_state_dict(source.state_dict())
        assert torch.equal(fresh(inputs), model(inputs))
    with pytest.raises(RuntimeError, match="size mismatch for coefficients"):
        machine(7).load_state_dict(model.state_dict())


def test_lower_precision_around_it_does_not_blur_the_distances() -> None:
    inputs, targets = digits()
    model = machine()
    model.fit(inputs, targets)
    expected = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(inputs), expected)


def test_gamma_without_the_kernel_that_has_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model.gamma: 0.1 is for model.kernel=rbf, not for linear; leave it out$"):
        machine(kernel="linear", gamma=0.1)


def test_a_run_is_fitted_evaluated_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["device=cpu", "log.tensorboard=false", "log.pictures=none"]
    assert main(["train", "model=svm", "data.subset=500", "epochs=1", *quick]) == 0
    (folder,) = Path("outputs").glob("*")
    assert main(["train", f"resume={folder}", "epochs=2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.95
