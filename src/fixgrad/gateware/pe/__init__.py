"""The processing element: lanes of multiply-accumulates, their memories, and the walk over kernels, pixels and taps."""
