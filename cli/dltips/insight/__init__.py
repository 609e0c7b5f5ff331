"""Reads runs: statistics, comparison, curves, TensorBoard's view."""
