"""Trains one run: the loop, checkpoints, curves, devices and seeds."""
