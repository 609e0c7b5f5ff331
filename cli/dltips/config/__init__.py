"""From what was typed to a validated config: overrides, recipes, composition by Hydra, validation, redaction."""
