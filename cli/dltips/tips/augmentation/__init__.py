"""Augmentations: `(inputs, targets, generator, *, knobs) -> (inputs, targets)`, on every training batch.

Inputs are floats: images and spectrograms (N, C, H, W) in [0, 1], waveforms (N, 1, T), vectors (N, F). Every sample
draws its own, from the generator alone, which is on their device; the inputs are never written to. One with something
to learn from the training split is a class, `(samples, *, knobs)`, and then called like the functions; one that says
`after_preprocessing = True` sees what the net would see, and may turn targets into shares (N, K).

The cards' milliseconds come from benchmarks/augmentation.py.
"""

from dltips.tips.augmentation.audio import distort, spec_augment, time_shift
from dltips.tips.augmentation.base import Batch, Samples, augmentation, none
from dltips.tips.augmentation.color import FancyPca, Whiten, color_jitter, contrast
from dltips.tips.augmentation.corruption import blur, drop_pixels, erase, noise
from dltips.tips.augmentation.geometry import crop, flip, rotate
from dltips.tips.augmentation.mixing import Cutmix, Mixup

__all__ = [
    "Batch",
    "Cutmix",
    "FancyPca",
    "Mixup",
    "Samples",
    "Whiten",
    "augmentation",
    "blur",
    "color_jitter",
    "contrast",
    "crop",
    "distort",
    "drop_pixels",
    "erase",
    "flip",
    "noise",
    "none",
    "rotate",
    "spec_augment",
    "time_shift",
]
