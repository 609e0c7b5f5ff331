"""Augmentations: `(inputs, targets, generator, *, knobs) -> (inputs, targets)`, on every training batch.

Inputs are floats: images and spectrograms (N, C, H, W) in [0, 1], waveforms (N, 1, T), vectors (N, F). Every sample
draws its own, from the generator alone, which is on their device; the inputs are never written to. One with something
to learn from the training split is a class, `(samples, *, knobs)`, and then called like the functions; one that says
`after_preprocessing = True` sees what the net would see, and may turn targets into shares (N, K).
"""

from dltips.tips.augmentation.base import Batch, Samples, augmentation, none
from dltips.tips.augmentation.geometry import crop, flip

__all__ = ["Batch", "Samples", "augmentation", "crop", "flip", "none"]
