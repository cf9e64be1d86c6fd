"""The update unit: momentum SGD on stored weights, a weight a cycle."""
