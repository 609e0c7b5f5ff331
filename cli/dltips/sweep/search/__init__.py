"""`dltips sweep`: a search over hyperparameters, resumable, with many workers on one study."""
