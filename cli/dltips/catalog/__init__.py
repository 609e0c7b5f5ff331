"""Holds the tips by name: the families' registries, cards, the articles' claims, combinations to warn of."""
