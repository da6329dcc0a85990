"""Losses, batches, checkpoints and the loop."""
