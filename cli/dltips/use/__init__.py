"""Uses a trained net: loads it, evaluates it on the test split, predicts new files, draws samples."""
