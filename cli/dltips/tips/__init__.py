"""Holds the tips: one module per family, one function or small class per tip. Knows neither Hydra nor run folders."""
