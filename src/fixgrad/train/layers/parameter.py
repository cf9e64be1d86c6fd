"""A stored weight or bias with its moments, operand codes and mask, as buffers of a module."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.errors import DataError
from fixgrad.network.adam import AdamConstants, AdamShifts
from fixgrad.network.recipe import Optimiser, UpdateConstants
from fixgrad.network.state import Parameter
from fixgrad.network.step_table import UpdateScales
from fixgrad.network.update import ParameterFormats, TermShifts
from fixgrad.numbers import Rounding, bit_length
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.live import Live, live_channels
from fixgrad.train.kernels.pointwise import AdamJob, UpdateJob
from fixgrad.train.kernels.tiles import image_tiles

#: Bytes that the update of an element touches: stored value, momentum and gradient; Adam has a second moment.
_UPDATE_BYTES, _ADAM_BYTES = 12, 16


class IntegerParameter(nn.Module):
    """One parameter of a network between two steps: what `fixgrad.network.Parameter` is, on any device.

    Convolution weights lie as [out, rows, columns, in], so that they are matrices [out, taps * in] of the GEMMs as they
    are; linear weights as [out, in], biases as [out].

    Attributes:
        stored, momentum: int32 codes; under Adam `momentum` holds the words of the first moment.
        second_moment: int32 words under Adam, None under SGD.
        operand: int8 codes of a weight: its rounded top (empty for a bias).
        mask: bool [out, in] of a weight: kernels (of a group) or elements that live (empty for a bias).
        host: formats, shifts and magnitude; its arrays are views of one number, of the parameter's shape alone.
        pruned: whether a mask was ever set.
        whole: whether dead channels are computed too, because their gradients are asked for.
    """

    stored: Tensor
    momentum: Tensor
    second_moment: Tensor | None
    operand: Tensor
    mask: Tensor

    def __init__(self, parameter: Parameter, device: torch.device) -> None:
        super().__init__()
        self.host = _without_data(parameter)
        self.pruned = parameter.mask is not None
        self.whole = False
        self._live: tuple[tuple[int, int], Live | None] | None = None
        is_bias = parameter.stored.ndim == 1
        stored = _to_device(channels_last(parameter.stored), device)
        mask = np.ones(parameter.stored.shape[:2], np.bool_) if parameter.mask is None else parameter.mask
        self.register_buffer("stored", stored)
        self.register_buffer("momentum", _to_device(channels_last(parameter.momentum), device))
        second = parameter.second_moment
        self.register_buffer("second_moment", None if second is None else _to_device(channels_last(second), device))
        self.register_buffer("mask", _to_device(mask[:0] if is_bias else mask, device))
        operand = np.empty(0, np.int8) if is_bias else channels_last(parameter.operand().astype(np.int8))
        self.register_buffer("operand", _to_device(operand, device))

    @property
    def live(self) -> Live | None:
        """Channels that pruning has left; None where it has left all, and on a GPU, where taking some out does not pay."""
        if not self.pruned or self.whole or self.mask.device.type != "cpu" or self.mask.numel() == 0:
            return None
        version = self.mask.data_ptr(), self.mask._version
        if self._live is None or self._live[0] != version:
            self._live = version, live_channels(self.mask)
        return self._live[1]

    def masked(self, gradient: Tensor) -> Tensor:
        """The gradient with zeros where the mask is dead."""
        if not self.pruned:
            return gradient
        return gradient * self._expanded_mask()

    def prune(self, mask: NDArray[np.bool_]) -> None:
        """Keep only what `mask` [out, in] and the mask in force keep; dead weights and moments become zero.

        Raises:
            DataError: the mask's shape is not [out, in] of the parameter.
        """
        if self.mask.numel() == 0 or mask.shape != tuple(self.mask.shape):
            raise DataError(f"the mask has shape {mask.shape}: the parameter needs {tuple(self.mask.shape)}")
        self.mask &= _to_device(np.asarray(mask, np.bool_), self.mask.device)
        self.pruned = True
        for buffer in (self.stored, self.momentum, self.second_moment, self.operand):
            if buffer is not None:
                buffer *= self._expanded_mask()

    def set_mask(self, mask: NDArray[np.bool_]) -> None:
        """Put `mask` [out, in] in the place of the mask in force. What was dead is zero, and starts as that.

        Raises:
            DataError: the mask's shape is not [out, in] of the parameter.
        """
        if mask.shape == tuple(self.mask.shape):
            self.mask.fill_(True)
        self.prune(mask)

    def use_optimiser(self, optimiser: Optimiser) -> None:
        """Keep the moments where the optimiser keeps such ones; else begin its own at zero."""
        if (self.second_moment is not None) != optimiser.is_adaptive:
            self.momentum.zero_()
            self.second_moment = torch.zeros_like(self.momentum) if optimiser.is_adaptive else None

    def update(
        self,
        gradient: Tensor,
        scales: UpdateScales,
        constants: UpdateConstants | AdamConstants,
        rounding: Rounding,
        kernels: Kernels,
    ) -> None:
        """One update from the summed gradient, int32 in the shape of `stored`; dead weights stay zero."""
        stored, momentum, gradients = (_matrices(codes) for codes in (self.stored, self.momentum, gradient))
        second = None if self.second_moment is None else _matrices(self.second_moment)
        operand = _matrices(self.operand) if self.operand.numel() else None
        key = scales.key if rounding is Rounding.STOCHASTIC else None
        shifts, formats = scales.shifts, self.host.formats

        def update_part(part: slice) -> Tensor:
            mask = self.mask[part] if self.pruned else None
            place = gradients[part], mask, part.start, None if operand is None else operand[part], scales.operand_shift, formats
            if isinstance(constants, AdamConstants):
                assert isinstance(shifts, AdamShifts)
                assert second is not None
                return kernels.pointwise.adam(AdamJob(stored[part], momentum[part], second[part], *place, shifts, constants, key))
            assert isinstance(shifts, TermShifts)
            return kernels.pointwise.update(UpdateJob(stored[part], momentum[part], *place, shifts, constants, key))

        bytes_each = _UPDATE_BYTES if second is None else _ADAM_BYTES
        parts = image_tiles(len(stored), stored[0].numel() * bytes_each, workers=kernels.workers.count)
        largest = kernels.workers.map(update_part, parts)
        self.host.magnitude = bit_length(max(int(each) for each in largest))
        self.host.operand_shift = scales.operand_shift

    def to_parameter(self) -> Parameter:
        """A copy in NumPy, [out, in, rows, columns]."""
        host = self.host
        mask = _to_numpy(self.mask) if self.pruned else None
        stored, momentum = channels_first(_to_numpy(self.stored)), channels_first(_to_numpy(self.momentum))
        second = None if self.second_moment is None else channels_first(_to_numpy(self.second_moment))
        return Parameter(host.formats, stored, momentum, host.operand_shift, host.magnitude, mask, second)

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps beside the buffers."""
        host = self.host
        return {
            "formats": tuple(host.formats),
            "operand_shift": host.operand_shift,
            "magnitude": host.magnitude,
            "pruned": self.pruned,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`."""
        self.host.formats = ParameterFormats(*state["formats"])
        self.host.operand_shift, self.host.magnitude = int(state["operand_shift"]), int(state["magnitude"])
        self.pruned = bool(state["pruned"])

    def _expanded_mask(self) -> Tensor:
        return self.mask if self.stored.dim() == 2 else self.mask[:, None, None, :]


def channels_last(codes: NDArray[Any]) -> NDArray[Any]:
    """[out, in, rows, columns] as [out, rows, columns, in]; other shapes as they are."""
    return codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes


def channels_first(codes: NDArray[Any]) -> NDArray[Any]:
    """[n, rows, columns, channels] as [n, channels, rows, columns], contiguous; other shapes as they are."""
    return np.ascontiguousarray(codes.transpose(0, 3, 1, 2)) if codes.ndim == 4 else codes


def _matrices(codes: Tensor) -> Tensor:
    """[out, rows, columns, in] as [out, taps, in], [out, in] as [out, 1, in], a bias [out] as [1, 1, out]."""
    if codes.dim() == 1:
        return codes.reshape(1, 1, -1)
    return codes.reshape(codes.shape[0], -1, codes.shape[-1])


def _without_data(parameter: Parameter) -> Parameter:
    shape = np.broadcast_to(np.int32(0), parameter.stored.shape)
    return Parameter(parameter.formats, shape, shape, parameter.operand_shift, parameter.magnitude)


def _to_device(codes: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(codes, order="C")).to(device)


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy().copy()
