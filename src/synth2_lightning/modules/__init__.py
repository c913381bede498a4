"""LightningModules for training and prediction, and their components."""
