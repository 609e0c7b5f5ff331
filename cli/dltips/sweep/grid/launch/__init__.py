"""Launchers of a grid beside this process and its workers: submitit (SLURM, or jobs of this machine) and Ray."""
