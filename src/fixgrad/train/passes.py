"""What both directions of a training step share: modules, first scales, gates, and the making of errors from accumulators."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.network.graph import Network
from fixgrad.network.layers import Layer
from fixgrad.network.operations import ceiling_code
from fixgrad.network.recipe import OPERAND_BITS, Recipe
from fixgrad.network.scaling import ScaleHistory, first_history
from fixgrad.network.state import State
from fixgrad.network.step_table import dropout_key, error_scales
from fixgrad.numbers import Rounding, StreamKey, bit_length
from fixgrad.train.collective import Collective
from fixgrad.train.kernels.choice import Kernels
from fixgrad.train.kernels.convolution import Product
from fixgrad.train.kernels.gemm import LARGEST_CODE
from fixgrad.train.kernels.pointwise import combined, on_host
from fixgrad.train.layers import IntegerParameter, LayerModule
from fixgrad.train.step_record import Measurement, StepRecord

Job = Callable[[], None]


class Passes(nn.Module):
    """The base of the executor's passes.

    Attributes:
        network, recipe: what is trained, and how.
        collective: the workers that share each batch.
        kernels: which compute it.
        layers: a module for each layer, in order.
    """

    network: Network
    recipe: Recipe
    collective: Collective
    kernels: Kernels
    layers: nn.ModuleList
    _host: State
    _watched: dict[str, NDArray[np.integer]] | None
    _by_name: dict[str, IntegerParameter]

    @property
    def device(self) -> torch.device:
        """Where the integers lie."""
        return next(iter(self._by_name.values())).stored.device

    def _modules_in_order(self) -> Iterator[LayerModule]:
        for module in self.layers:
            assert isinstance(module, LayerModule)
            yield module

    def _first_scale(self, measures: list[Tensor], frac: int, otherwise: int | None = None) -> ScaleHistory:
        """The first scale of a tensor; with the exponent `otherwise` where nothing but zeros was seen."""
        bits = bit_length(on_host(self.collective.max_(combined(measures))).largest)
        return first_history(bits, frac, -frac if otherwise is None else otherwise)

    def _gate_of(self, tensor: str, part: slice, run: StepRecord) -> Tensor | None:
        """Codes that are positive where an error passes the rectifier of `tensor`; None without one."""
        rectifier = self.network.rectifier_of(tensor)
        if rectifier is None or tensor == self.network.logits:
            return None
        codes = run.activations[tensor][part]
        ceiling = LARGEST_CODE + 1 if rectifier.ceiling is None else ceiling_code(rectifier.ceiling, run.fracs[tensor])
        return codes if ceiling > LARGEST_CODE else codes * (codes < ceiling)

    def _error_jobs(self, name: str, tensor: str, product: Product, frac: int, phase: str, run: StepRecord) -> list[Job]:
        """What makes the error codes of a tensor, or of a part of it by another name, from accumulators, part by part."""
        pointwise = self.kernels.pointwise
        if name not in self._host.error_scales:
            self._host.error_scales[name] = self._measured_error(name, tensor, product, frac, run)
        scales = error_scales(name, frac, self._host, self.recipe.seed)
        key = scales.key if self.recipe.error_rounding is Rounding.STOCHASTIC else None
        codes = self._new_maps(run.batch, tensor, OPERAND_BITS)
        measures: list[Tensor] = []
        run.errors[name], run.error_fracs[name] = codes, scales.frac
        run.backward[name] = Measurement(measures, frac, codes.numel())

        def requantise(part: slice) -> None:
            sums, overflow = product.compute(part)
            run.note_overflow(phase, overflow)
            gate = self._gate_of(tensor, part, run) if name == tensor else None
            place = run.place._replace(first=run.place.first + part.start)
            measures.append(pointwise.requantise_error(sums, gate, scales.shift, key, place, codes[part]))

        return [partial(requantise, part) for part in product.tiles]

    def _measured_error(
        self, name: str, tensor: str, product: Product, frac: int, run: StepRecord, otherwise: int | None = None
    ) -> ScaleHistory:
        """The first scale of an error."""

        def measure(part: slice) -> Tensor:
            gate = self._gate_of(tensor, part, run) if name == tensor else None
            return self.kernels.pointwise.measure_error(product.compute(part).sums, gate)

        return self._first_scale(self.kernels.workers.map(measure, product.tiles), frac, otherwise)

    def _dropout_key(self, layer: Layer) -> StreamKey:
        return dropout_key(self.recipe.seed, self._host.step, layer.name)

    def _new_maps(self, batch: int, tensor: str, bits: int) -> Tensor:
        """An empty tensor of codes, channels innermost."""
        shape = self.network.shapes[tensor]
        narrow = torch.int32 if tensor == self.network.logits else torch.int16
        dtype = torch.int8 if bits <= OPERAND_BITS else narrow
        return torch.empty((batch, *shape[1:], shape[0]), dtype=dtype, device=self.device)
