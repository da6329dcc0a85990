"""Scans, tables, codes and report texts → volumes in HU, model inputs, manifests and labels."""
