"""Data sources: `(*, knobs) -> Source`. One module per kind of source; what they share is in source.py."""

from dltips.tips.data import audio, digits, image_folder, npz, synthetic, table, torchvision_sets
from dltips.tips.data.source import Common, Source

__all__ = ["Common", "Source", "audio", "digits", "image_folder", "npz", "synthetic", "table", "torchvision_sets"]
