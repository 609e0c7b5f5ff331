"""Weights of trained nets: where they come from, how a file names them, and how they come into a net of ours."""
