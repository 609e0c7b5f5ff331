"""A run's folder: names, locks, writing, reading and finding; checkpoints, metrics, TensorBoard events."""
