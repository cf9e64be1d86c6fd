"""Networks of the user's own: ``FILE.py:FUNCTION`` returns an ordinary module."""

import torch

from fixgrad.errors import UsageError
from fixgrad.network.layers import Shape
from fixgrad.train.capture import Captured, capture
from fixgrad.train.user_code import load_callable


def own_model(spec: str, input_shape: Shape, input_frac: int, seed: int = 0) -> Captured:
    """The network and the initial weights of the module that a user's function returns.

    Args:
        spec: ``FILE.py:FUNCTION``, a function without arguments.
        input_shape: (channels, height, width) of an image.
        input_frac: fractional bits of the 8-bit input codes.
        seed: `torch.manual_seed` is set to it before the function is called.

    Raises:
        UsageError: it returned no module, or one that cannot be trained in fixed point (see `capture`).
        FixgradError: the function raised.
    """
    function = load_callable(spec)
    torch.manual_seed(seed)
    module = function()
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{spec} returned a {type(module).__name__}: it must return a torch.nn.Module")
    return capture(module, function.name, input_shape, input_frac)
