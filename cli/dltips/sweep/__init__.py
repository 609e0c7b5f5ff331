"""Runs many trials: grids and searches, frozen before they start, resumable, in one process or in many."""
