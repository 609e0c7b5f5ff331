"""A support vector machine: the simpler model that a net should beat."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive
from dltips.errors import ConfigError
from dltips.nets.blocks import Activation, model


class KernelMachine(nn.Module):
    """The result of fitted machines, one per class against the rest; (N, ...) to (N, K) decision values.

    The values are multiplied by a temperature, the only thing that epochs train: it makes them log-probabilities.
    """

    vectors: Tensor
    coefficients: Tensor
    intercepts: Tensor
    gamma: Tensor

    def __init__(self, features: int, num_classes: int, kernel: str) -> None:
        super().__init__()
        self.kernel = kernel
        self.temperature = nn.Parameter(torch.ones(1))
        self.register_buffer("vectors", torch.zeros(0, features))  # (S, F): the support vectors of all classes
        self.register_buffer("coefficients", torch.zeros(num_classes, 0))  # (K, S)
        self.register_buffer("intercepts", torch.zeros(num_classes))
        self.register_buffer("gamma", torch.zeros(()))

    def fit_against_the_rest(self, inputs: Tensor, targets: Tensor, C: float, gamma: float | str) -> None:
        """Fits to (N, ...) inputs and their (N,) classes. `gamma` may be "scale": 1 / (features * variance)."""
        from sklearn.svm import SVC

        samples = inputs.flatten(1).double().numpy()
        if isinstance(gamma, str):  # scale
            gamma = 1 / (samples.shape[1] * (samples.var() or 1.0))
        classes = len(self.intercepts)
        coefficients = torch.zeros(classes, len(samples), dtype=torch.float64)
        intercepts = torch.zeros(classes, dtype=torch.float64)
        for index in range(classes):
            mine = targets.numpy() == index
            if mine.all() or not mine.any():  # nothing to separate
                intercepts[index] = 1.0 if mine.all() else -1.0
                continue
            machine = SVC(kernel=self.kernel, C=C, gamma=gamma).fit(samples, mine)
            coefficients[index, machine.support_] = torch.from_numpy(machine.dual_coef_[0])
            intercepts[index] = float(machine.intercept_[0])
        support = coefficients.any(0)
        self.vectors = inputs.flatten(1)[support].float()
        self.coefficients = coefficients[:, support].float()
        self.intercepts = intercepts.float()
        self.gamma = torch.tensor(gamma, dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        # half the digits would not separate near vectors
        with torch.autocast(inputs.device.type, enabled=False):
            samples = inputs.flatten(1).float()
            products = samples @ self.vectors.T
            if self.kernel == "rbf":
                squares = samples.square().sum(1, keepdim=True) + self.vectors.square().sum(1)
                products = torch.exp(-self.gamma * (squares - 2 * products).clamp(min=0))
            decisions = products @ self.coefficients.T + self.intercepts
            return decisions * self.temperature

    @property
    def flops_per_sample(self) -> int:
        """FLOPs of one sample's forward pass: two per multiply-add."""
        return 2 * (self.vectors.numel() + self.coefficients.numel())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Allocates as many support vectors as the saved machine has: their number depends on the data."""
        vectors, coefficients = (state_dict.get(prefix + name) for name in ("vectors", "coefficients"))
        if isinstance(vectors, Tensor) and isinstance(coefficients, Tensor):
            if vectors.shape[1:] == self.vectors.shape[1:]:
                self.vectors = self.vectors.new_zeros(vectors.shape)
            if coefficients.shape[:1] == self.coefficients.shape[:1]:
                self.coefficients = self.coefficients.new_zeros(coefficients.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class SupportVectorMachine(KernelMachine):
    """The machine as a model, which scikit-learn fits to the preprocessed inputs."""

    keeps = ("init", "activation")
    remedy = "; a support vector machine has neither"

    def __init__(self, features: int, num_classes: int, kernel: str, C: float, gamma: float | str) -> None:
        super().__init__(features, num_classes, kernel)
        self.C, self.gamma_setting = C, gamma

    def fit(self, inputs: Tensor, targets: Tensor) -> None:
        """Fits to (N, ...) preprocessed inputs and their (N,) classes."""
        self.fit_against_the_rest(inputs, targets, self.C, self.gamma_setting)


@model
@card(
    when="few data, or vectors: deep learning is not for everything, and whatever is simpler should be beaten first",
    formula="f_k(x) = sum_i a_ki K(x_i, x) + b_k, with K = exp(-gamma |x_i - x|^2) or x_i . x",
    source="tip B; Cortes and Vapnik 1995; one against the rest: Rifkin and Klautau 2004",
    recommends="standardized inputs, and C and gamma from a grid of powers",
    costs="one fit before the first epoch, whose time grows with the square of the samples or faster: for thousands of"
    " them, not for tens of thousands",
    avoid={
        "preprocessing=none": "the kernel takes the feature of the largest values for the only one; take standardize"
    },
)
def svm(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    kernel: Literal["rbf", "linear"],
    C: Positive,
    gamma: Positive | Literal["scale"],
) -> nn.Module:
    """Support vector machine on the preprocessed inputs, one per class against the rest; the simpler model to beat.

    It is fitted before the epochs begin, and these train the temperature of its outputs alone.
    """
    if kernel == "linear" and gamma != "scale":
        raise ConfigError(f"model.gamma: {gamma} is for model.kernel=rbf, not for linear; leave it out")
    return SupportVectorMachine(math.prod(input_shape), num_classes, kernel, C, gamma)
