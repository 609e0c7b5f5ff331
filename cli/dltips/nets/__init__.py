"""What tips and training know of a net: flat buffers, stages, blocks, pooling, size, spectrograms, key maps."""
