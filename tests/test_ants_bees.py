"""The recipe finetune_ants_bees on the real photographs and weights: its claim, seed by seed."""

import os
from pathlib import Path

import pytest

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.train.build import build_run
from dltips.train.fit import fit

WEIGHTS = "weights/mobilenet_v2_tflite_dequant_fp16.pth"


@pytest.mark.slow
def test_the_mean_of_five_seeds_is_at_least_94_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path(os.environ.get("DLTIPS_TEST_DATA", tmp_path))
    if not (data / WEIGHTS).exists() or not (data / "hymenoptera").exists():
        pytest.skip("DLTIPS_TEST_DATA holds no weights or no hymenoptera")
    monkeypatch.chdir(tmp_path)
    scores = []
    for seed in range(5):
        chosen = ["+recipe=finetune_ants_bees", f"data.root={data / 'hymenoptera'}", f"seed={seed}"]
        config = validate(compose([*chosen, f"finetune.source={data / WEIGHTS}", "log.layers=false"])[0])
        run = build_run(config)
        assert len(run.splits.val) == 153
        scores.append(fit(run).records[-1]["val/accuracy"])
    assert sum(scores) / len(scores) >= 0.94, scores
