"""What reads runs: statistics, diagnosis, comparison, curves."""
