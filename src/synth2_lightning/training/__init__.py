"""Parts of a training run below the LightningModules: optimizers, seeds, sharding, and checks on all ranks."""
