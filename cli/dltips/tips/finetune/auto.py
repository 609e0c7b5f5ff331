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

MOST_SAMPLES = 5000  # samples of the training split at most: the estimate ranks stages, it does not score them
# Nats between two log evidences from which one is strong evidence against the other (2 ln B = 6 in Kass and Raftery
# 1995). Below it the nearest centroid decides. Where probe and machine differed by more than 2 points, in 79 of 126
# cases (three nets, five data sets, 5 to 100 samples per class), this was right 55 times, LogME alone 48, the centroid
# alone 49, the probe always 17
STRONG_EVIDENCE = 3.0


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
    net: PretrainedNet,
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
    body = net.stages[:-1]
    if not body:
        raise ConfigError(
            f"finetune=auto: {net.architecture} has no stage before its head to look at; write finetune=full"
        )
    features = net.features(body)
    size = statistics.median(net.counts)
    similar, reasons = similarity(body, features, net.seed)
    plans = {
        (True, True): lambda: linear_probe(net, views=views),
        (False, True): lambda: top_layers(net, n=min(n, len(body)), rate=rate),
        (False, False): lambda: most_layers(net, freeze_first=min(freeze_first, len(body)), rate=rate),
        (True, False): lambda: best_svm(net, features, kernel, C),
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
class _StageScore:
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
    sampled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:MOST_SAMPLES]
    scores = {stage: _stage_score(features[stage], sampled) for stage in body}

    rival = max(earlier, key=lambda stage: scores[stage].evidence)
    lead = (scores[last].evidence - scores[rival].evidence) * len(sampled)
    is_clear = abs(lead) >= STRONG_EVIDENCE
    opinion = _likeness(lead >= 0) if is_clear else f"too close to tell, at less than {STRONG_EVIDENCE:g} nats"
    reasons = [
        f"auto: similarity, LogME: the last stage, {last}, {scores[last].evidence:.3f}, the best before it, {rival},"
        f" {scores[rival].evidence:.3f}: {lead:+.1f} nats, {opinion}"
    ]
    rival = max(earlier, key=lambda stage: scores[stage].accuracy)
    last_is_nearer = scores[last].accuracy >= scores[rival].accuracy
    if not is_clear:
        opinion = f"{_likeness(last_is_nearer)}, which decides"
    elif last_is_nearer == (lead >= 0):
        opinion = f"{_likeness(last_is_nearer)} too"
    else:
        opinion = f"{_likeness(last_is_nearer)}, but LogME, which weighs all directions of the features, decides"
    reasons.append(
        f"auto: similarity, nearest centroid: {last} {scores[last].accuracy:.3f}, the best before it, {rival},"
        f" {scores[rival].accuracy:.3f}: {opinion}"
    )
    return (lead >= 0 if is_clear else last_is_nearer), reasons


def _likeness(similar: bool) -> str:
    return "similar" if similar else "different"


def _stage_score(features: Features, sampled: torch.Tensor) -> _StageScore:
    train, targets = features.train.cpu()[sampled], features.train_targets.cpu()[sampled]
    return _StageScore(
        logme(train, targets), nearest_centroid(train, targets, features.val.cpu(), features.val_targets.cpu())
    )
