"""Layers, losses and sampling procedures in plain PyTorch."""
