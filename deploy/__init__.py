"""What runs in the image beside the product: the health checks of its containers."""
