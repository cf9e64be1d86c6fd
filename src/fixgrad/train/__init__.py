"""Training in PyTorch: layers, integer optimisers, pruning schedule, data, loop and checkpoints."""
