"""The machine computes chains of layers: what of a network is none is refused before anything else is looked at."""

from fixgrad.errors import UsageError
from fixgrad.network import Network
from fixgrad.network.graph import CHAIN_LAYERS

#: Layers that are named in the message; the others are counted.
_NAMED = 4


def refuse_graphs(network: Network) -> None:
    """Refuse a network that the instruction set cannot express yet.

    Raises:
        UsageError: it is no chain of Conv2d, Linear, ReLU, MaxPool2d and Flatten; the layers that are outside are named.
    """
    outside = network.outside_of_a_chain
    if not outside:
        return
    named = ", ".join(f"{layer.name} ({layer.kind})" for layer in outside[:_NAMED])
    more = f" and {len(outside) - _NAMED} more layers" if len(outside) > _NAMED else ""
    kinds = ", ".join(kind.__name__ for kind in CHAIN_LAYERS)
    raise UsageError(
        f"{network.name} cannot be compiled yet: the machine computes chains of {kinds}, and {named}{more} are none of that; "
        "train it without a machine, or choose a network such as vgg11"
    )
