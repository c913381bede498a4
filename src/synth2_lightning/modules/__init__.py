"""LightningModules for training and prediction, and their parts."""
