"""The training step in PyTorch: bit for bit that of `fixgrad.network.reference`, at the speed of 8-bit hardware."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.errors import DataError, UsageError
from fixgrad.network.graph import Network
from fixgrad.network.recipe import OPERAND_BITS, Recipe
from fixgrad.network.reference import finish_step
from fixgrad.network.scaling import ScaleHistory
from fixgrad.network.state import State
from fixgrad.network.step_table import step_table
from fixgrad.network.update_rules import check_moments
from fixgrad.train.backward_pass import BackwardPass
from fixgrad.train.collective import SINGLE, Collective
from fixgrad.train.forward_pass import ForwardPass
from fixgrad.train.kernels.choice import Kernels, choose_kernels
from fixgrad.train.kernels.gemm import LARGEST_CODE
from fixgrad.train.kernels.pointwise import Placement
from fixgrad.train.layers import BatchNorm, DepthwiseConv2d, IntegerParameter, MacModule, build_layer
from fixgrad.train.step_record import StepRecord, StepReport

__all__ = ["StepReport", "TorchExecutor"]


class TorchExecutor(ForwardPass, BackwardPass):
    """Trains a network step by step, with the verbs and the bits of `fixgrad.network.reference.ReferenceExecutor`.

    All integers of the run are buffers of this module, so that `to()` moves them and `state_dict()` holds them.

    Args:
        network: what to train.
        state: is copied; see `to_state` for the way back. `calibrate` must run once before the first step.
        recipe: formats, rounding and constants.
        total_steps: length of the run, for the schedule.
        device: where to compute.
        path: of integer products: ``"auto"``, ``"int8"``, ``"fp32"`` or ``"fp64"``. All give the same bits.
        collective: the workers that share each batch; every one is given its own images, in the order of the ranks.
        fused: whether pointwise functions may be compiled ones.

    Raises:
        UsageError: an unknown path, codes wider than 8 bits between two layers with weights, or a state with the moments of
            another optimiser.
        FixgradError: the path is not exact on this machine.
    """

    def __init__(
        self,
        network: Network,
        state: State,
        recipe: Recipe,
        total_steps: int,
        device: str | torch.device = "cpu",
        path: str = "auto",
        collective: Collective = SINGLE,
        fused: bool = True,
    ) -> None:
        super().__init__()
        _check_widths(network)
        check_moments(state, recipe.optimiser)
        self.network = network
        self.recipe = recipe
        self.total_steps = total_steps
        self.collective = collective
        self._wanted_path, self._fused = path, fused
        device = torch.device(device)
        self.kernels = self._choose_kernels(device)
        self.layers = nn.ModuleList(build_layer(layer, state, self.kernels, device) for layer in network)
        self._by_name = dict(self._named_integer_parameters())
        self._watched = None
        parameters = {name: parameter.host for name, parameter in self._by_name.items()}
        self._host = State(
            state.step,
            parameters,
            dict(state.activation_scales),
            dict(state.error_scales),
            set(state.overflows),
            moment_steps=state.moment_steps,
        )

    @property
    def steps_done(self) -> int:
        """The number of updates done."""
        return self._host.step

    def use_recipe(self, recipe: Recipe) -> None:
        """Go on with other constants, or another optimiser. Moments that it does not know are given up, and its own begin at zero."""
        changes = recipe.optimiser.is_adaptive != self.recipe.optimiser.is_adaptive
        self.recipe = recipe
        if changes:
            for parameter in self._by_name.values():
                parameter.use_optimiser(recipe.optimiser)
            self._host.moment_steps = 0
            self._renew_kernels()

    @property
    def is_calibrated(self) -> bool:
        """Whether the tensors have scales."""
        return self.network.logits in self._host.error_scales

    def calibrate(self, x: Any, labels: Any, *, nhwc: bool = False) -> None:
        """Fill the empty scale histories from one batch, layer by layer: forward, loss, backward. Nothing is updated."""
        with self.kernels.workers.alone():
            codes = self._input(x, nhwc)
            run = StepRecord(False, self._place(len(codes)), len(codes))
            self._forward(codes, run, inference=False)
            self._loss(run, self._labels(labels, len(codes)))
            self._backward(run)

    def predict(self, x: Any, *, nhwc: bool = False) -> Tensor:
        """Logit codes [batch, classes], int32 (int8 for logits of 8 bits), with the scales in force."""
        return self._predicted(x, nhwc)[0]

    def logits(self, x: Any, *, nhwc: bool = False) -> Tensor:
        """The values of the logits that `predict` gives, float32."""
        codes, frac = self._predicted(x, nhwc)
        return codes.to(torch.float32) * 2.0**-frac

    def _predicted(self, x: Any, nhwc: bool) -> tuple[Tensor, int]:
        with self.kernels.workers.alone():
            codes = self._input(x, nhwc)
            run = StepRecord(False, Placement(0, len(codes)), len(codes))
            self._forward(codes, run, inference=True)
            return run.activations[self.network.logits], run.fracs[self.network.logits]

    def step(self, x: Any, labels: Any, *, nhwc: bool = False, trace: bool = False) -> StepReport:
        """One training step.

        Args:
            x: int8 codes of -127..127, NumPy or torch: [batch, channels, height, width], with `nhwc`
                [batch, height, width, channels], or [batch, features].
            labels: [batch], 0 to classes - 1.
            trace: whether the report shall carry every tensor of the step.

        Raises:
            UsageError: before `calibrate`.
            DataError: codes or labels of the wrong shape or range.
        """
        return self.finish(self.begin(x, labels, nhwc=nhwc, trace=trace))

    def begin(self, x: Any, labels: Any, *, nhwc: bool = False, trace: bool = False) -> StepRecord:
        """The first half of a step: forward and loss. Nothing is changed; arguments and errors are those of `step`."""
        if not self.is_calibrated:
            raise UsageError("no tensor has a scale yet: call calibrate(x, labels) with one batch before the first step")
        with self.kernels.workers.alone():
            codes = self._input(x, nhwc)
            classes = self._labels(labels, len(codes))
            run = StepRecord(trace, self._place(len(codes)), len(codes))
            self._forward(codes, run, inference=False)
            self._loss(run, classes)
        return run

    def finish(self, run: StepRecord) -> StepReport:
        """The second half: backward, and the update of each layer as soon as its NG is done."""
        with self.kernels.workers.alone():
            run.table = step_table(self.network, self._host, self.recipe, self.total_steps, run.place.batch)
            self._backward(run)
            seen = run.report(self.collective)
        finish_step(self._host, seen)
        return StepReport(
            seen.loss,
            seen.correct,
            seen.saturated,
            seen.overflows,
            seen.forward_bits,
            seen.error_bits,
            seen if run.keep else None,
        )

    def prune(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        """Keep only the kernels or elements of a weight that `mask` [out, in] and earlier masks keep.

        Raises:
            UsageError: the network has no such parameter.
            DataError: the mask's shape is not [out, in] of the parameter.
        """
        if parameter not in self._by_name:
            raise UsageError(f"no parameter {parameter!r} to prune: the network has {', '.join(self._by_name)}")
        self._by_name[parameter].prune(mask)

    def set_mask(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        """Put `mask` [out, in] in the place of the one that is set: what comes to life starts at zero.

        Raises:
            UsageError, DataError: as `prune`.
        """
        if parameter not in self._by_name:
            raise UsageError(f"no parameter {parameter!r} to prune: the network has {', '.join(self._by_name)}")
        self._by_name[parameter].set_mask(mask)

    def watch_gradients(self) -> None:
        """The next step computes WG of dead kernels too, for `take_gradients`. Nothing else of it changes."""
        self._watched = {}
        for parameter in self._by_name.values():
            parameter.whole = True

    def take_gradients(self) -> dict[str, NDArray[np.integer]]:
        """WG of every weight in the step that was watched, of all workers: int32 [out, in, rows, columns]."""
        taken, self._watched = self._watched or {}, None
        for parameter in self._by_name.values():
            parameter.whole = False
        return taken

    def to_state(self) -> State:
        """A copy of everything that the run has to remember, in NumPy."""
        host = self._host
        parameters = {name: parameter.to_parameter() for name, parameter in self._by_name.items()}
        running = {each.layer.name: each.running() for each in self._modules_in_order() if isinstance(each, BatchNorm)}
        scales = dict(host.activation_scales), dict(host.error_scales)
        return State(host.step, parameters, *scales, set(host.overflows), running, host.moment_steps)

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps beside the buffers: steps, scale histories and sticky flags."""
        return {
            "step": self._host.step,
            "moment_steps": self._host.moment_steps,
            "activation_scales": {name: scale.exponents for name, scale in self._host.activation_scales.items()},
            "error_scales": {name: scale.exponents for name, scale in self._host.error_scales.items()},
            "overflows": sorted(self._host.overflows),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_extra_state`."""
        host = self._host
        host.step, host.overflows = int(state["step"]), set(state["overflows"])
        host.moment_steps = int(state.get("moment_steps", 0))  # states of earlier versions know of SGD alone
        host.activation_scales = {name: ScaleHistory(tuple(e)) for name, e in state["activation_scales"].items()}
        host.error_scales = {name: ScaleHistory(tuple(e)) for name, e in state["error_scales"].items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TorchExecutor":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._renew_kernels()
        return self

    def _choose_kernels(self, device: torch.device) -> Kernels:
        adapts = self.recipe.optimiser.is_adaptive
        return choose_kernels(device, self._wanted_path, self._fused, joins=_joins(self.network), adapts=adapts)

    def _renew_kernels(self) -> None:
        self.kernels = self._choose_kernels(self.device)
        for module in self._modules_in_order():
            module.kernels = self.kernels

    def _named_integer_parameters(self) -> Iterator[tuple[str, IntegerParameter]]:
        for module in self._modules_in_order():
            if isinstance(module, MacModule):
                yield f"{module.layer.name}.weight", module.weight
                if module.bias is not None:
                    yield f"{module.layer.name}.bias", module.bias
            elif isinstance(module, BatchNorm):
                yield module.layer.gamma, module.gamma
                yield module.layer.beta, module.beta

    def _place(self, images: int) -> Placement:
        """Where this worker's images lie in the global batch: behind those of the workers before it."""
        counts = torch.zeros(self.collective.size, dtype=torch.int64)
        counts[self.collective.rank] = images
        self.collective.sum_(counts)
        return Placement(int(counts[: self.collective.rank].sum()), int(counts.sum()))

    def _input(self, x: Any, nhwc: bool) -> Tensor:
        codes = torch.as_tensor(x)
        shape = self.network.input_shape
        expected = (*shape[1:], shape[0]) if nhwc and len(shape) == 3 else shape
        if tuple(codes.shape[1:]) != tuple(expected) or len(codes) == 0:
            raise DataError(f"the input has shape {tuple(codes.shape)}: {self.network.name} reads (batch, {expected})")
        if codes.is_floating_point() or _exceeds(codes):
            raise DataError(f"the input holds {codes.dtype} beyond 8-bit codes: it must be integers of -127 to 127")
        if codes.dim() == 4 and not nhwc:
            codes = codes.permute(0, 2, 3, 1)
        return codes.to(self.device, torch.int8).contiguous()

    def _labels(self, labels: Any, batch: int) -> NDArray[np.int64]:
        codes = torch.as_tensor(labels).cpu().numpy().astype(np.int64)
        if codes.shape != (batch,):
            raise DataError(f"the labels have shape {codes.shape}: a batch of {batch} images needs ({batch},)")
        if codes.min() < 0 or codes.max() >= self.network.classes:
            raise DataError(
                f"labels go from {codes.min()} to {codes.max()}: {self.network.name} has the classes 0 to "
                f"{self.network.classes - 1}"
            )
        return codes


def _exceeds(codes: Tensor) -> bool:
    """Whether a code lies outside of -127..127."""
    low, high = torch.aminmax(codes)
    return int(low) < -LARGEST_CODE or int(high) > LARGEST_CODE


def _joins(network: Network) -> bool:
    """Whether the functions for anything but chains of matrix products have work to do."""
    return not network.is_chain or any(DepthwiseConv2d.computes(layer) for layer in network.mac_layers)


def _check_widths(network: Network) -> None:
    for layer in network.mac_layers:
        tensor = layer.inputs[0]
        if network.code_bits(tensor) > OPERAND_BITS:
            bits, source = network.code_bits(tensor), network.source_of(tensor)
            raise UsageError(f"{layer.name} reads codes of {bits} bits from {source}: operands have {OPERAND_BITS}")
