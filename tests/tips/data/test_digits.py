"""scikit-learn's digits, as they are kept."""

from pathlib import Path

import numpy
import pytest
import torch
from sklearn.datasets import load_digits

from dltips.tips.data.digits import digits


def test_every_gray_level_stays_distinct_and_the_darkest_and_brightest_are_0_and_255(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, theirs = digits(), load_digits()
    assert source.inputs.dtype == torch.uint8 and tuple(source.inputs.shape) == (1797, 1, 8, 8)
    levels = [numpy.unique(theirs.images[source.inputs[:, 0].numpy() == level]) for level in source.inputs.unique()]
    assert [len(level) for level in levels] == [1] * 17
    assert (int(source.inputs.min()), int(source.inputs.max())) == (0, 255)
    assert source.targets.tolist() == theirs.target.tolist() and source.classes == tuple("0123456789")
    assert source.reader == {"kind": "image"} and source.test_inputs is None
