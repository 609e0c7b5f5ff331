"""Fits a simple classifier to a stage's activations, which replaces all later stages."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive
from dltips.errors import ConfigError, suggest
from dltips.tips.finetune.base import Features, FinetunePlan, Phase, PretrainedNet, ReplacedHead, finetune
from dltips.tips.model.svm import KernelMachine

MAX_STEPS = 10_000  # scikit-learn's 1000 and 100 are too few for a thousand features and a large C
INTERCEPT_SCALING = 100.0  # scaled so, an intercept's penalty is 1e-4 of a weight's
# decision value of a class without a training sample: never chosen, and the loss stays finite
UNSEEN_DECISION = -20.0

# fits (N, F) standardized float64 samples and their (N,) classes, with C, into the machine; returns whether it
# converged
Fit = Callable[[Tensor, Tensor, float, KernelMachine], bool]


class FeatureClassifier(nn.Module):
    """Standardization and a fitted machine: a stage's features (N, F) to (N, K) decision values.

    `kernel` is linear (the machine's vectors are then the weights of the K classes, its coefficients 1) or rbf. The
    machine's temperature, 1 at first, is all that trains.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: int, classes: int, kernel: str) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.machine = KernelMachine(features, classes, kernel)

    def forward(self, features: Tensor) -> Tensor:
        decisions: Tensor = self.machine((features - self.shift) / self.scale)
        return decisions


@finetune
@card(
    when="few data, different from those the net was trained on; for many data a net that trains is the better one",
    formula="f_k(x) = sum_i a_ki K(z_i, z) + b_k: z a stage's activations, averaged over places and standardized, K ="
    " exp(-|z_i - z|^2 / F) or z_i . z; one class against the rest",
    source="tip K; Donahue et al. 2014, arXiv 1310.1531",
    recommends="an SVM on activations of an earlier stage",
    costs="one forward pass per sample, and a fit for each stage and each C: seconds for a thousand samples; rbf grows"
    " with the square of the samples or faster",
    avoid={
        "regularization=l1": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=l2": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=elastic": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=weight_decay": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=dropout": "it acts in stages that rest, where it is off; set finetune.C for the fit",
    },
    try_with=("finetune.source=RUN",),
)
def earlier_stage_svm(
    net: PretrainedNet, *, stage: str | None, kernel: Literal["linear", "rbf"], C: tuple[Positive, ...]
) -> FinetunePlan:
    """A support vector machine on one stage's activations. For few data unlike the net's own.

    With `stage: null` every stage before the head is tried, and of `C` every value: the best on the validation split
    wins, of equals the earliest stage, whose net is the shortest, with the smallest C, whose margin is the widest. The
    winner's validation accuracy is too good, then, by what luck adds to the best of many; a test split has none of it.
    Epochs train the temperature of its outputs alone.
    """
    return best_svm(net, net.features(_stages_to_try(net, stage)), kernel, C)


@finetune
@card(
    when="few data, different from those the net was trained on, where probabilities matter: they need no temperature",
    formula="softmax(W z + b), z a stage's activations, averaged over places and standardized; W by maximum likelihood"
    " less |W|^2 / (2 C)",
    source="tip S; Alain and Bengio 2016, arXiv 1610.01644",
    recommends="a linear classifier on activations of an earlier stage",
    costs="one forward pass per sample, and a fit for each stage and each C: seconds for a thousand samples",
    avoid={
        "regularization=l1": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=l2": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=elastic": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=weight_decay": "nothing but a temperature trains; set finetune.C for the fit",
        "regularization=dropout": "it acts in stages that rest, where it is off; set finetune.C for the fit",
    },
    try_with=("finetune.source=RUN",),
)
def earlier_stage_linear(net: PretrainedNet, *, stage: str | None, C: tuple[Positive, ...]) -> FinetunePlan:
    """Logistic regression on one stage's activations. For few data unlike the net's own.

    With `stage: null` every stage before the head is tried, and of `C` every value: the best on the validation split
    wins, of equals the earliest stage, whose net is the shortest, with the smallest C. The winner's validation accuracy
    is too good, then, by what luck adds to the best of many; a test split has none of it. Epochs train the temperature
    of its outputs alone.
    """
    return _best_classifier(
        "earlier_stage_linear", net, net.features(_stages_to_try(net, stage)), "linear", C, _logistic
    )


def best_svm(net: PretrainedNet, features: Mapping[str, Features], kernel: str, C: Sequence[float]) -> FinetunePlan:
    """Returns the plan of earlier_stage_svm, among stages with known features."""
    fit = _support_vectors if kernel == "rbf" else _linear_svm
    return _best_classifier("earlier_stage_svm", net, features, kernel, C, fit)


def _stages_to_try(net: PretrainedNet, stage: str | None) -> Sequence[str]:
    """Returns the stages to try. Raises ConfigError for an unknown one, or the head."""
    *body, head = net.stages
    if not body:
        raise ConfigError(
            f"finetune.stage: {net.architecture} has no stage before its head; write finetune=linear_probe"
        )
    if stage is None:
        return body
    if stage == head:
        raise ConfigError(
            f"finetune.stage: {stage!r} is the head of {net.architecture}, which is new and untrained; the last"
            f" stage before it is {body[-1]}"
        )
    if stage not in body:
        raise ConfigError(f"finetune.stage: {stage!r} is not a stage of {net.architecture}{suggest(stage, body)}")
    return [stage]


@dataclass(frozen=True)
class _Candidate:
    stage: str
    C: float
    correct: int  # of the validation samples
    module: FeatureClassifier


def _best_classifier(
    strategy: str, net: PretrainedNet, features: Mapping[str, Features], kernel: str, C: Sequence[float], fit: Fit
) -> FinetunePlan:
    """Fits every stage with every C; returns the best on the validation split."""
    if not C:
        raise ConfigError("finetune.C: [] holds no value; write '[0.01,0.1,1]'")
    body = [stage for stage in net.stages if stage in features]
    assert body, "no stage has features"
    if len(torch.unique(features[body[0]].train_targets)) < 2:
        raise ConfigError(f"finetune={strategy}: all training samples are of one class; a classifier needs two")
    winners, not_converged = [], []
    for stage in body:
        candidates = []
        for value in sorted(set(C)):
            candidate, converged = _candidate(stage, features[stage], len(net.counts), kernel, value, fit)
            candidates.append(candidate)
            if not converged:
                not_converged.append(f"{stage} with C = {value:g}")
        winners.append(max(candidates, key=lambda one: one.correct))  # max takes the first of equals
    winner = max(winners, key=lambda one: one.correct)
    notes = _selection_notes(strategy, winner, winners, features, tried=len(body) * len(set(C)))
    if not_converged:
        notes.append(
            f"{strategy}: no convergence after {MAX_STEPS} steps for {', '.join(not_converged)}; smaller values of"
            " finetune.C converge sooner"
        )
    return FinetunePlan(
        strategy,
        (Phase(0, {"top": 1.0}),),
        views=1,
        top=ReplacedHead(winner.stage, kernel, winner.module, features[winner.stage]),
        notes=tuple(notes),
    )


def _candidate(
    stage: str, features: Features, classes: int, kernel: str, C: float, fit: Fit
) -> tuple[_Candidate, bool]:
    """Returns one stage with one C: the classifier, its validation score, and whether it converged."""
    from sklearn.preprocessing import StandardScaler

    train = features.train.detach().cpu().double()
    scaler = StandardScaler().fit(train.numpy())
    module = FeatureClassifier(train.shape[1], classes, kernel)
    converged = fit(torch.from_numpy(scaler.transform(train.numpy())), features.train_targets.cpu(), C, module.machine)
    module.shift.copy_(torch.from_numpy(scaler.mean_))
    module.scale.copy_(torch.from_numpy(scaler.scale_))
    with torch.no_grad():
        predicted = module(features.val.cpu()).argmax(1)
    return _Candidate(stage, C, int((predicted == features.val_targets.cpu()).sum()), module), converged


def _linear_svm(samples: Tensor, targets: Tensor, C: float, machine: KernelMachine) -> bool:
    """Fits `machine`, a linear SVM per class, in place; returns whether it converged.

    Each minimizes |w|^2 / 2 + C * (sum of squared hinge losses) against the rest, with b free.
    """
    count, width = samples.shape
    if count <= 4 * width:
        # 1000 samples of 1280 features, ten classes, five values of C: 1 s, with liblinear 26 s
        _fill_linear_machine(machine, *_svm_by_products(samples, targets, C))
        return True
    from sklearn.svm import LinearSVC

    # liblinear shrinks b like a weight, but one class against nine needs a b near -1: scaled, it hardly shrinks
    # draws no random numbers
    fitted = LinearSVC(C=C, dual=False, intercept_scaling=INTERCEPT_SCALING, max_iter=MAX_STEPS)
    _fit_quietly(fitted, samples, targets)
    weights, intercepts = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(intercepts) == 1:  # two classes share a machine
        weights, intercepts = torch.cat([-weights, weights]), torch.cat([-intercepts, intercepts])
    _fill_linear_machine(machine, fitted.classes_, weights, intercepts)
    return bool(fitted.n_iter_ < MAX_STEPS)


def _svm_by_products(samples: Tensor, targets: Tensor, C: float) -> tuple[Any, Tensor, Tensor]:
    """Returns the classes present, their weights and intercepts, fitted by libsvm on the samples' products.

    Adding 1 / (2 C) to each square turns hard margins into the squared hinge loss.
    """
    from sklearn.svm import SVC

    products = (samples @ samples.T + torch.eye(len(samples)).to(samples) / (2 * C)).numpy()
    present = torch.unique(targets)
    weights, intercepts = [], []
    for index in present:
        fitted = SVC(kernel="precomputed", C=1e10).fit(products, (targets == index).numpy())
        weights.append(samples[fitted.support_].T @ torch.from_numpy(fitted.dual_coef_[0]))
        intercepts.append(float(fitted.intercept_[0]))
    return present.numpy(), torch.stack(weights), torch.tensor(intercepts)


def _logistic(samples: Tensor, targets: Tensor, C: float, machine: KernelMachine) -> bool:
    """Fits `machine` by multinomial logistic regression, in place; returns whether it converged.

    The softmax of the machine's values is scikit-learn's probability.
    """
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=C, max_iter=MAX_STEPS)
    _fit_quietly(fitted, samples, targets)
    weights, intercepts = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(intercepts) == 1:  # the log-odds of the second class: half for it, half against the first
        weights, intercepts = torch.cat([-weights, weights]) / 2, torch.cat([-intercepts, intercepts]) / 2
    _fill_linear_machine(machine, fitted.classes_, weights, intercepts)
    return bool((fitted.n_iter_ < MAX_STEPS).all())


def _support_vectors(samples: Tensor, targets: Tensor, C: float, machine: KernelMachine) -> bool:
    """Fits `machine`, an rbf machine per class against the rest, in place; returns True: libsvm converges."""
    machine.fit_against_the_rest(samples, targets, C, "scale")
    return True


def _fit_quietly(fitted: Any, samples: Tensor, targets: Tensor) -> None:
    """Fits without scikit-learn's convergence warning; the notes report it."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(samples.numpy(), targets.numpy())


def _fill_linear_machine(machine: KernelMachine, classes: Any, weights: Tensor, intercepts: Tensor) -> None:
    """Writes weights (P, F) and intercepts (P,) of the P classes with samples into a linear machine of K classes."""
    present = torch.from_numpy(classes)
    machine.vectors = weights.float().contiguous()  # as loaded from a checkpoint: kernels round by layout
    machine.coefficients = torch.zeros(len(machine.intercepts), len(present))
    machine.coefficients[present, torch.arange(len(present))] = 1.0
    machine.intercepts = torch.full_like(machine.intercepts, UNSEEN_DECISION)
    machine.intercepts[present] = intercepts.float()


def _selection_notes(
    strategy: str, winner: _Candidate, winners: Sequence[_Candidate], features: Mapping[str, Features], tried: int
) -> list[str]:
    """Returns the table of stages, each with its best C, the chosen one, and a note on its score."""
    count = len(features[winner.stage].val)
    rows = [("stage", "features", "C", "val/accuracy")]
    for one in winners:
        rows.append((one.stage, str(features[one.stage].train.shape[1]), f"{one.C:g}", f"{one.correct / count:.4f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    notes = [
        "  ".join([name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))])
        for name, *cells in rows
    ]
    equal = [one.stage for one in winners if one.correct == winner.correct]
    tie = f" ({', '.join(equal)} are equal: the earliest makes the shortest net)" if len(equal) > 1 else ""
    score = f"{winner.correct} of {count} validation samples are right"
    notes.append(f"{strategy}: {winner.stage} won with C = {winner.C:g}: {score}{tie}")
    if tried > 1:
        notes.append(
            f"{strategy}: the best of {tried} on the validation split, so its accuracy there is too good; a test split"
            " tells (dltips evaluate)"
        )
    return notes
