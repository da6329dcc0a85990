"""CT in: files become HU volumes with geometry, volumes become model inputs."""
