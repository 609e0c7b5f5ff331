"""Turns what was typed into a validated config: grammar, option files, checks, recipes, composition, validation."""
