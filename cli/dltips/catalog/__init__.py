"""Tips by name: the registries that the families fill, cards, the articles' claims, combinations to warn of."""
