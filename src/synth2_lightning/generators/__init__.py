"""Caption generators and image generators."""
