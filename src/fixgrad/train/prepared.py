"""A user's module, trained in fixed point inside of the user's own loop: the public interface `fixgrad.prepare`."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fixgrad.errors import DataError, UsageError
from fixgrad.network import Network, Recipe, Schedule, initial_state
from fixgrad.network.recipe import OPERAND_BITS
from fixgrad.numbers import bit_length
from fixgrad.sparse.densities import DensitySpec
from fixgrad.train.capture import CapturedModule, capture_module
from fixgrad.train.collective import SINGLE, Collective
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.layers import BatchNorm, MacModule
from fixgrad.train.pruning import layer_densities, macs_kept, magnitude_masks
from fixgrad.train.step_record import StepRecord, StepReport

_LARGEST = (1 << (OPERAND_BITS - 1)) - 1


def prepare(
    model: nn.Module,
    example_input: Tensor,
    recipe: Recipe | None = None,
    *,
    total_steps: int | None = None,
    name: str | None = None,
    collective: Collective = SINGLE,
) -> "PreparedModel":
    """Make an ordinary module ready to be trained in fixed point.

    The module's own weights are the initial ones. It is not changed until `PreparedModel.write_back`.

    Args:
        model: maps images [batch, channels, height, width] to logits [batch, classes].
        example_input: a batch of images as the training will see them, float (its largest magnitude sets the scale of the 8-bit
            input codes: give a whole batch, not one image), or int8 codes as they are, which then stand for code / 64.
        recipe: widths, rounding, seed, and the update rule with its constants. An optimiser of `fixgrad.optim` replaces the
            constants by its own. None: the default recipe.
        total_steps: length of the run for the recipe's own schedule; not needed with an optimiser.
        name: for messages; None: the module's class.
        collective: the workers that share each batch, such as `fixgrad.train.collective.from_environment()` under torchrun: every
            one is given its own images, and all end with the same bits as one alone with all images.

    Raises:
        UsageError: something in the module cannot be trained in fixed point: all of it is named, with what to use instead.
        DataError: the example holds no finite image.
    """
    name = name or type(model).__name__
    frac = _input_frac(example_input, collective)
    captured = capture_module(model, name, tuple(example_input.shape[1:]), frac)
    device = next((tensor.device for tensor in captured.tensors.values()), torch.device("cpu"))
    return PreparedModel(model, captured, recipe or Recipe(), total_steps, device, collective)


class PreparedModel(nn.Module):
    """A network in fixed point, behind the verbs of an ordinary training loop. Make one with `prepare`.

    Attributes:
        module: the user's module, in float; see `write_back`.
        network: its description.
        executor: holds all integers of the run.
    """

    def __init__(
        self,
        module: nn.Module,
        captured: CapturedModule,
        recipe: Recipe,
        total_steps: int | None,
        device: torch.device,
        collective: Collective = SINGLE,
    ) -> None:
        super().__init__()
        # A list hides the float module: its parameters are not those of this one.
        self._float = [module]
        self._tensors = captured.tensors
        self.network = captured.network
        state = initial_state(self.network, captured.weights, recipe)
        self.executor = TorchExecutor(self.network, state, recipe, total_steps or 1, device, collective=collective)
        self._scheduled = total_steps is not None
        self._begun: StepRecord | None = None

    @property
    def module(self) -> nn.Module:
        """The user's module."""
        return self._float[0]

    @property
    def recipe(self) -> Recipe:
        """The recipe in force."""
        return self.executor.recipe

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes], float32: evaluation, with running statistics and without dropping. No gradient follows it.

        Raises:
            UsageError: before the first step: no tensor has a scale yet.
        """
        self._refuse_uncalibrated()
        return self.executor.logits(self.codes(images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of a batch in integers, as a scalar whose `backward` belongs to the optimiser's next step.

        The first call chooses the first scales from the batch.

        Raises:
            DataError: images or labels of the wrong shape or range.
        """
        codes = self.codes(images)
        if not self.executor.is_calibrated:
            self.executor.calibrate(codes, labels)
        run = self.executor.begin(codes, labels)
        value = torch.tensor(run.mean_loss(), requires_grad=True)
        loss: Tensor = _Backward.apply(value, self, run)  # type: ignore[no-untyped-call]
        return loss

    def update(self, **constants: Any) -> StepReport:
        """The backward pass and the update that belong to the last `loss(...).backward()`; optimisers call it.

        Args:
            constants: of the update rule, fields of the `Recipe`; the rate is that of this step.

        Raises:
            UsageError: there is none.
        """
        if self._begun is None:
            raise UsageError("there is no gradient: call net.loss(images, labels).backward() before each optimiser step")
        run, self._begun = self._begun, None
        self.executor.use_recipe(replace(self.recipe, **constants, schedule=Schedule.CONSTANT, warmup_steps=0))
        return self.executor.finish(run)

    def step(self, images: Tensor, labels: Tensor) -> StepReport:
        """One training step with the recipe's own optimiser and schedule: loss, backward and update in one.

        Raises:
            UsageError: `prepare` was not told the length of the run, and the schedule needs it.
        """
        if not self._scheduled and self.recipe.schedule is not Schedule.CONSTANT:
            raise UsageError(
                f"the recipe's schedule is {self.recipe.schedule}: tell prepare(..., total_steps=...) the length of the run, "
                "choose schedule='constant', or use an optimiser of fixgrad.optim"
            )
        codes = self.codes(images)
        if not self.executor.is_calibrated:
            self.executor.calibrate(codes, labels)
        return self.executor.step(codes, labels)

    def codes(self, images: Tensor) -> Tensor:
        """The int8 codes of images: rounded half up at the network's input scale, saturated. Integers are codes already."""
        if not images.is_floating_point():
            return images
        scaled = torch.floor(images.detach().double() * 2.0**self.network.input_frac + 0.5)
        return scaled.clamp(-_LARGEST, _LARGEST).to(torch.int8)

    def prune(self, density: DensitySpec) -> float:
        """Keep the kernels (convolutions) and elements (linear layers) of largest magnitude; what is dead stays dead.

        Args:
            density: share to keep: a number, ``"talk"``, a file, or a dictionary by layer.

        Returns:
            Share of a step's multiply-accumulates that is left.
        """
        parameters = self.executor.to_state().parameters
        weights = {name: parameter.stored for name, parameter in parameters.items() if name.endswith(".weight")}
        self.set_masks(magnitude_masks(weights, layer_densities(density, self.network), self.masks()))
        return macs_kept(self.network, self.masks())

    def set_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Kill what masks [out, in] say, by the name of the weight (``layer1_0_conv1.weight``).

        Raises:
            UsageError: there is no such weight.
            DataError: a mask of another shape.
        """
        for name, mask in masks.items():
            self.executor.prune(name, np.asarray(mask, np.bool_))

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """The masks that are set."""
        parameters = self.executor.to_state().parameters
        return {name: parameter.mask for name, parameter in parameters.items() if parameter.mask is not None}

    @torch.no_grad()
    def write_back(self) -> nn.Module:
        """Bring the user's module up to date: stored weights and running statistics as floats. Returns it.

        Its float forward pass is close to, and not the same as, that of the integers.
        """
        state = self.executor.to_state()
        for name, parameter in state.parameters.items():
            _fill(self._tensors[name], np.ldexp(parameter.stored.astype(np.float64), -parameter.formats.stored_frac))
        for module in self.executor.layers:
            if isinstance(module, BatchNorm):
                for name, values in module.running_values().items():
                    _fill(self._tensors[f"{module.layer.name}.{name}"], values)
        return self.module

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` keeps beside the executor's integers: what they are of."""
        held: dict[str, Any] = json.loads(json.dumps({"network": self.network.to_dict(), "recipe": self.recipe.to_dict()}))
        return held

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes the recipe over; the network is checked by `load_state_dict`."""
        self.executor.use_recipe(Recipe.from_dict(state["recipe"]))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restore what `state_dict` saved: weights, momenta, masks, formats, scales, running statistics, step and recipe.

        Raises:
            DataError: it is of another network or other widths, of a float module, or has no masks for what is sparse here.
        """
        found = state_dict.get("_extra_state")
        if not isinstance(found, Mapping) or "network" not in found:
            raise DataError(
                "the state is not one of a prepared model: load a float state into your module, before you prepare it"
            )
        if Network.from_dict(found["network"]) != self.network:
            raise DataError(f"the state is of another network ({found['network']['name']}): prepare the module that it was saved from")
        self._refuse_missing_masks(state_dict)
        self.set_extra_state(dict(found))  # an optimiser's moments need their place before they are read
        return super().load_state_dict(state_dict, strict, assign)

    def _refuse_missing_masks(self, state_dict: Mapping[str, Any]) -> None:
        for index, module in enumerate(self.executor.layers):
            if not isinstance(module, MacModule):
                continue
            prefix = f"executor.layers.{index}.weight."
            saved = state_dict.get(f"{prefix}_extra_state")
            if saved is None or f"{prefix}stored" not in state_dict:
                raise DataError(f"the state lacks {module.layer.name}.weight: it was not saved by state_dict() of a prepared model")
            if module.weight.pruned and not (saved["pruned"] and f"{prefix}mask" in state_dict):
                raise DataError(
                    f"the state has no mask for {module.layer.name}.weight, which is pruned here: dead weights would come back to "
                    "life; load it into a model that is not pruned"
                )

    def _refuse_uncalibrated(self) -> None:
        if not self.executor.is_calibrated:
            raise UsageError("no tensor has a scale yet: take a training step, or load a state, before you evaluate")


class _Backward(torch.autograd.Function):
    """Lets `loss.backward()` tell the model which batch the optimiser's next step is about."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, model: PreparedModel, run: StepRecord) -> Tensor:
        ctx.model, ctx.run = model, run
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None, None]:
        (gradient,) = gradients
        if float(gradient) != 1.0:
            raise UsageError(f"the loss was scaled by {float(gradient):g} before backward(): change the learning rate instead")
        if ctx.model._begun is not None:
            raise UsageError("gradients of two batches cannot be added up: call the optimiser's step after each backward()")
        ctx.model._begun = ctx.run
        return None, None, None


def _input_frac(example: Tensor, collective: Collective) -> int:
    """Fractional bits at which the largest magnitude of all workers' examples fits into 8-bit codes."""
    if example.dim() not in (2, 4) or len(example) == 0:
        raise DataError(f"the example input has the shape {list(example.shape)}: give a batch [images, channels, height, width]")
    if not example.is_floating_point():
        return OPERAND_BITS - 2
    largest = float(example.detach().abs().max())
    if not 0 < largest < float("inf"):
        raise DataError(f"the example input has the largest magnitude {largest}: give a batch of real images")
    # As an integer with 20 fractional bits: exact enough to tell between two powers of two.
    bits = collective.max_(torch.tensor(bit_length(int(largest * (1 << 20)))))
    return OPERAND_BITS - 1 - (int(bits) - 20)


def _fill(tensor: Tensor, values: NDArray[np.float64]) -> None:
    tensor.copy_(torch.from_numpy(values))
