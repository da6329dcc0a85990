"""Evaluation protocols: pure functions from embeddings and labels to tables."""
