"""What several commands let the user choose: a network, the densities of its layers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fixgrad.errors import UsageError

if TYPE_CHECKING:
    from fixgrad.network import Network


def chosen_network(model: str, input_shape: str | None = None) -> "Network":
    """A built-in network, or the module that a user's ``FILE.py:FUNCTION`` returns.

    Args:
        model: name, or ``FILE.py:FUNCTION``. Only the latter imports torch.
        input_shape: channels, height and width as ``3x32x32``: needed for a user's module, refused for a built-in network.
    """
    from fixgrad.network.models import model as built_in

    if not (":" in model and model.rpartition(":")[0].endswith(".py")):
        if input_shape is not None:
            raise UsageError(f"--input-shape is for a FILE.py:FUNCTION: {model} has its own, leave it out")
        return built_in(model)
    if input_shape is None:
        raise UsageError(f"{model} needs --input-shape, such as 3x32x32 (channels, height, width)")
    from fixgrad.train.user_network import user_network

    return user_network(model, _shape(input_shape))


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageError(f"--input-shape is {text!r}: write channels, height and width as 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def chosen_densities(network: "Network", density: str) -> Mapping[str, float]:
    """The density of each layer with weights: 'talk', a number, or a .json or .csv file by layer."""
    from fixgrad.network import Conv2d
    from fixgrad.sparse import densities_for

    layers = [(layer.name, isinstance(layer, Conv2d), layer.weight_shape) for layer in network.mac_layers]
    return densities_for(density, layers)
