"""`dltips train -m`: composes all trials of a grid before the first one starts; runs them here or elsewhere."""
