"""Turns a source into batches on the device."""
