"""Training: losses, optimizers, the LightningModule, and what a training writes."""
