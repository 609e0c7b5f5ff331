"""Launches a grid's trials elsewhere: by submitit (SLURM, or jobs of this machine) or Ray."""
