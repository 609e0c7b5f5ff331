"""`dltips train -m`: a grid of trials, composed before the first one starts, run here, in workers or elsewhere."""
