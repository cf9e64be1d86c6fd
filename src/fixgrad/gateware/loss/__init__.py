"""The loss unit: the gradient of softmax cross-entropy by table and division."""
