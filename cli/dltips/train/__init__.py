"""One run: the loop, the run folder, checkpoints, curves, devices and seeds."""
