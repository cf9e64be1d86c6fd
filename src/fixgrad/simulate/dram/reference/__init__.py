"""Tables of the DRAM model."""
