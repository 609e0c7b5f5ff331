"""Starts from a trained net: its weights, the plan of training phases, features that are computed once."""
