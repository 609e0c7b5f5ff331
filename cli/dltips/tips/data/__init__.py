"""Data sources: `(*, knobs) -> Source`. One module per kind of source; what they share is in source.py."""

from dltips.tips.data.source import DataKnobs, Source

__all__ = ["DataKnobs", "Source", "audio", "digits", "image_folder", "npz", "synthetic", "table", "torchvision_sets"]
