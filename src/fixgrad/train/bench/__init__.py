"""What a training step takes, beside the steps of others, measured."""
