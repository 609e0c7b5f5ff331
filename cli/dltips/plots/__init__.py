"""Draws plain records and tensors: curves.png, the chart in the terminal, a grid of samples."""
