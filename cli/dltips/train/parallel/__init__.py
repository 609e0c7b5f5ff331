"""The processes that share one run: where each stands, how they talk, who trains on what, who starts them."""
