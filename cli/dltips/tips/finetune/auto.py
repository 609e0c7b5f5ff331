"""Chooses among the four strategies by two factors: the number of data, and their similarity to the net's own."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from dltips.catalog.cards import card
from dltips.catalog.registry import Count, Positive, Size
from dltips.errors import ConfigError
from dltips.tips.finetune.base import Features, FinetunePlan, PretrainedNet, finetune
from dltips.tips.finetune.earlier import best_svm
from dltips.tips.finetune.layers import most_layers, top_layers
from dltips.tips.finetune.probe import linear_probe
from dltips.tips.finetune.transferability import logme, nearest_centroid

SAMPLES = 5000  # samples of the training split at most: the estimate ranks stages, it does not score them
# Nats between two log evidences from which one is strong evidence against the other (2 ln B = 6 in Kass and Raftery
# 1995). Below it the nearest centroid decides. Where probe and machine differed by more than 2 points, in 79 of 126
# cases (three nets, five data sets, 5 to 100 samples per class), this was right 55 times, LogME alone 48, the centroid
# alone 49, the probe always 17
STRONG = 3.0


@finetune
@card(
    when="the data's likeness to the net's own is not known; to know for certain, run the four strategies and compare",
    formula="few: median samples per class < few; similar: the last stage's log evidence is 3 above all earlier ones',"
    " or within 3 and its nearest centroid as often right; few, similar: linear_probe; many, similar: top_layers; many,"
    " different: most_layers; few, different: earlier_stage_svm",
    source="tips K and S, their matrix; the estimate: LogME, You et al. 2021, arXiv 2102.11005; the 3: Kass and Raftery"
    " 1995",
    costs="one forward pass per sample and a singular value decomposition per stage, then the chosen strategy",
    try_with=("finetune.source=RUN",),
)
def auto(
    subject: PretrainedNet,
    *,
    few: Size,
    views: Count,
    n: Size,
    freeze_first: Size,
    rate: Positive,
    kernel: Literal["linear", "rbf"],
    C: tuple[Positive, ...],
) -> FinetunePlan:
    """Measures the number of data and their similarity to the net's own, reports both, and takes the strategy for that.

    They are similar to the net's own if its last stage suits them best, as it suited those: LogME compares the stages'
    features, on the training split alone. Beside it stands the validation accuracy of the nearest centroid, which
    decides where LogME's evidence is not strong. The other knobs are those of the four strategies.
    """
    body = subject.stages[:-1]
    if not body:
        raise ConfigError(
            f"finetune=auto: {subject.architecture} has no stage before its head to look at; write finetune=full"
        )
    features = subject.features(body)
    size = statistics.median(subject.counts)
    similar, reasons = similarity(body, features, subject.seed)
    plans = {
        (True, True): lambda: linear_probe(subject, views=views),
        (False, True): lambda: top_layers(subject, n=min(n, len(body)), rate=rate),
        (False, False): lambda: most_layers(subject, freeze_first=min(freeze_first, len(body)), rate=rate),
        (True, False): lambda: best_svm(subject, features, kernel, C),
    }
    plan = plans[size < few, similar]()
    amount, likeness = "few" if size < few else "many", _likeness(similar)
    return replace(
        plan,
        notes=(
            f"auto: size: {size:g} training samples per class (median), {'less' if size < few else 'not less'} than"
            f" finetune.few={few}: {amount}",
            *reasons,
            f"auto: {amount} and {likeness}: finetune={plan.strategy}",
            *plan.notes,
        ),
    )


@dataclass(frozen=True)
class _Score:
    evidence: float  # LogME: per sample, mean over the classes
    accuracy: float  # of the nearest centroid


def similarity(body: Sequence[str], features: Mapping[str, Features], seed: int) -> tuple[bool, list[str]]:
    """Returns whether the last stage suits the data best, and the reasons: one line per estimate."""
    last, earlier = body[-1], body[:-1]
    if not earlier:
        return True, [
            f"auto: similarity: {last} is the only stage before the head: nothing to compare, taken as similar"
        ]
    count = len(features[last].train)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:SAMPLES]
    scores = {stage: _score(features[stage], chosen) for stage in body}

    rival = max(earlier, key=lambda stage: scores[stage].evidence)
    ahead = (scores[last].evidence - scores[rival].evidence) * len(chosen)
    clear = abs(ahead) >= STRONG
    opinion = _likeness(ahead >= 0) if clear else f"too close to tell, at less than {STRONG:g} nats"
    reasons = [
        f"auto: similarity, LogME: the last stage, {last}, {scores[last].evidence:.3f}, the best before it, {rival},"
        f" {scores[rival].evidence:.3f}: {ahead:+.1f} nats, {opinion}"
    ]
    rival = max(earlier, key=lambda stage: scores[stage].accuracy)
    nearer = scores[last].accuracy >= scores[rival].accuracy
    if not clear:
        opinion = f"{_likeness(nearer)}, which decides"
    elif nearer == (ahead >= 0):
        opinion = f"{_likeness(nearer)} too"
    else:
        opinion = f"{_likeness(nearer)}, but LogME, which weighs all directions of the features, decides"
    reasons.append(
        f"auto: similarity, nearest centroid: {last} {scores[last].accuracy:.3f}, the best before it, {rival},"
        f" {scores[rival].accuracy:.3f}: {opinion}"
    )
    return (ahead >= 0 if clear else nearer), reasons


def _likeness(similar: bool) -> str:
    return "similar" if similar else "different"


def _score(features: Features, chosen: torch.Tensor) -> _Score:
    train, targets = features.train.cpu()[chosen], features.train_targets.cpu()[chosen]
    return _Score(
        logme(train, targets), nearest_centroid(train, targets, features.val.cpu(), features.val_targets.cpu())
    )
