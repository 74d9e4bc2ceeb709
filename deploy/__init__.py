"""Files of the container image, and the health checks of its containers."""
