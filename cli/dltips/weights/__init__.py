"""Loads trained weights: their source, the names in a file, and the transfer into a net of ours."""
