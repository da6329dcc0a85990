"""Reproducible companion to Merlin: a 3D vision-language model for abdominal CT."""

__version__ = "0.1.0"
