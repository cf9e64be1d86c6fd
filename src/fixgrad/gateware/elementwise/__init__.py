"""The elementwise unit: maps to maps, sums of channels, and the scalars of batch normalisation."""
