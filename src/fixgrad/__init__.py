"""fixgrad: sparse 8-bit fixed-point training of convolutional networks, the same bits from PyTorch to an FPGA."""

__version__ = "0.1.0"
