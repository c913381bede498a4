"""Lightning datamodules for real, synthetic and mixed image-text batches, and for prediction."""
