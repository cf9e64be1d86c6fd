"""The network of a user's ``FILE.py:FUNCTION``, for commands that describe it without training it."""

import torch

from fixgrad.errors import UsageError
from fixgrad.network import Network
from fixgrad.network.layers import Shape
from fixgrad.network.models import INPUT_FRAC
from fixgrad.train.capture import capture
from fixgrad.train.user_code import load_callable


def user_network(spec: str, input_shape: Shape) -> Network:
    """The network that the module returned by ``FILE.py:FUNCTION`` describes.

    Args:
        spec: ``FILE.py:FUNCTION``.
        input_shape: (channels, height, width) of one image.

    Raises:
        UsageError: no such function, it returns no nn.Module, or the module cannot be trained in fixed point.
        FixgradError: the function fails; the message names the line of the user's file.
    """
    function = load_callable(spec)
    module = function()
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{spec} returned a {type(module).__name__}: it must return a torch.nn.Module")
    return capture(module, function.name, input_shape, INPUT_FRAC).network
