"""From what was typed to a validated config: grammar, option files, checks, recipes, composition, validation."""
