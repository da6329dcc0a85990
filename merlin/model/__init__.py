"""Image and text towers."""
