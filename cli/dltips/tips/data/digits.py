"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels, embedded, no download."""

from __future__ import annotations

import numpy

from dltips.catalog.cards import card
from dltips.tips.data.source import Acquired, Source, cached, data


@data
@card(
    when="for a first run and for trying things out: small, quick, nothing to download",
    formula="1,797 samples (1, 8, 8), about 180 of each class; 17 gray levels, light on dark",
    source="Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits (its test set), by scikit-learn",
    costs="nothing to download; about a second of importing scikit-learn, the first time alone",
)
def digits() -> Source:
    """Handwritten digits, 1,797 gray images of 8x8, 10 classes, split by seed (Alpaydin and Kaynak 1998)."""
    return cached("digits", "3", _acquire)


def _acquire() -> Acquired:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 gray levels, 0..16, spread over 0..255: every level stays distinct
    images = numpy.rint(bunch.images * (255 / 16)).astype(numpy.uint8)[:, None]
    return Acquired({"inputs": images, "targets": bunch.target.astype(numpy.int64)}, "0123456789", {"kind": "image"})
