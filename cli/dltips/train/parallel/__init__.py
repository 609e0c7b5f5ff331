"""The processes that share one run: their places, messages, shares of the work, and start."""
