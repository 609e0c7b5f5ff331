"""dltips: deep-learning tips as switches, and each switch as evidence."""

__version__ = "0.1.0"
