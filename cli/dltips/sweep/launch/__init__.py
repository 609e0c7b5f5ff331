"""Launchers of grids beside this process and its workers: joblib, submitit (SLURM, or jobs on this machine) and Ray."""
