"""What the weights of a run take in memory: the 8-bit operands of every layer, dense and in CSB."""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from fixgrad.errors import DataError
from fixgrad.network import MacLayer, Network, State
from fixgrad.network.recipe import OPERAND_BITS
from fixgrad.sparse import CSB, Mask

#: Channels (CONV) or features (FC) along the edge of a CSB block: coordinates of 5 bits.
BLOCK = 32


@dataclass(frozen=True, slots=True)
class LayerStorage:
    """Operand weights of one layer.

    Attributes:
        weights: of the unpruned layer.
        alive: weights that are stored.
        dense_bytes: of the unpruned layer.
        csb_bytes: of values, coordinates and block pointers.
    """

    weights: int
    alive: int
    dense_bytes: int
    csb_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values."""
        return asdict(self)


def weight_storage(network: Network, state: State) -> dict[str, LayerStorage]:
    """Encode the operand weights of every layer in CSB, decode them again, and count bytes.

    Raises:
        DataError: what was decoded is not what was encoded.
    """
    return {layer.name: _encode(layer, state) for layer in network.mac_layers}


def _encode(layer: MacLayer, state: State) -> LayerStorage:
    parameter = state.weight(layer)
    operand = parameter.operand().astype(np.int8)
    mask = Mask.full(operand.shape) if parameter.mask is None else Mask(parameter.mask)
    encode = CSB.from_kernels if operand.ndim == 4 else CSB.from_dense
    csb = encode(operand, mask=mask, block=(BLOCK, BLOCK))
    if not np.array_equal(csb.to_dense(), operand):
        raise DataError(f"{layer.name}: its weights in CSB are not its weights: something that is masked is not 0")
    return LayerStorage(
        weights=operand.size,
        alive=csb.nnz * prod(operand.shape[2:]),
        dense_bytes=operand.size * OPERAND_BITS // 8,
        csb_bytes=csb.nbytes(OPERAND_BITS).total,
    )
