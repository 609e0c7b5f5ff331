"""Describes nets for tips and training: flat buffers, stages, blocks, pooling, size, spectrograms, key maps."""
