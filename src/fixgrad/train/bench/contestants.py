"""The training steps that are compared, each on its own random batch."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn

from fixgrad.network import Network, Recipe, initial_state
from fixgrad.train.bench.fake_quantised import fake_quantise, quantise_gradients, quantise_update
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.float_baseline import float_module
from fixgrad.train.initialise import initial_weights
from fixgrad.train.pruning import layer_densities, magnitude_masks

Step = Callable[[], object]
#: Small enough that the values of a step stay in range however often it is repeated.
_RATE = 1e-4


class Contestant(StrEnum):
    """Whose step it is."""

    FP32 = "fp32"
    BF16 = "bf16"
    FAKE_QUANTISED = "fake_quantised"
    FIXGRAD = "fixgrad"
    FIXGRAD_SPARSE = "fixgrad_sparse"


@dataclass(frozen=True, slots=True)
class Contest:
    """What is compared.

    Attributes:
        network: what is trained.
        batch: images in a step.
        density: of the sparse step: ``talk``, a number or a file; None: there is no sparse step.
        device: ``"cpu"`` or ``"cuda:0"``.
        path: of fixgrad's integer products.
    """

    network: Network
    batch: int
    density: str | None = None
    device: str = "cpu"
    path: str = "auto"

    @property
    def contestants(self) -> list[Contestant]:
        """Who takes part; the first is what the others are compared with."""
        return [
            contestant
            for contestant in Contestant
            if (contestant is not Contestant.BF16 or self.device != "cpu")
            and (contestant is not Contestant.FIXGRAD_SPARSE or self.density is not None)
        ]

    def step(self, contestant: Contestant) -> Step:
        """A step of that contestant, ready to be repeated; it returns when the device is done."""
        match contestant:
            case Contestant.FIXGRAD:
                step = self._fixed_point(None)
            case Contestant.FIXGRAD_SPARSE:
                step = self._fixed_point(self.density)
            case _:
                step = self._float(contestant)
        return step if self.device == "cpu" else _synchronised(step)

    def _float(self, contestant: Contestant) -> Step:
        """Eager PyTorch at its quickest: channels last, rectifiers in place, momentum SGD with `foreach`."""
        module: nn.Module = float_module(self.network).to(self.device)
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its stubs
        x = torch.randn(self.batch, *self.network.input_shape, device=self.device)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        _rectify_in_place(module, x[:2])
        if contestant is Contestant.FAKE_QUANTISED:
            module = fake_quantise(module)
        optimiser = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=0.9, weight_decay=5e-4, foreach=True)
        labels = torch.randint(self.network.classes, (self.batch,), device=self.device)

        def step() -> Tensor:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=contestant is Contestant.BF16):
                loss = nn.functional.cross_entropy(module(x), labels)
            loss.backward()
            if contestant is Contestant.FAKE_QUANTISED:
                quantise_gradients(optimiser)
            optimiser.step()
            if contestant is Contestant.FAKE_QUANTISED:
                quantise_update(optimiser)
            return loss.detach()

        return step

    def _fixed_point(self, density: str | None) -> Step:
        network, recipe = self.network, Recipe(learning_rate=_RATE)
        weights = initial_weights(network, seed=0)
        executor = TorchExecutor(
            network, initial_state(network, weights, recipe), recipe, total_steps=10**6, device=self.device, path=self.path
        )
        if density is not None:
            for name, mask in magnitude_masks(weights, layer_densities(density, network), {}).items():
                executor.prune(name, mask)
        rng = np.random.default_rng(0)
        x = np.clip(rng.normal(0, 64, (self.batch, *network.input_shape)), -127, 127).astype(np.int8)
        labels = rng.integers(0, network.classes, self.batch)
        executor.calibrate(x, labels)
        return lambda: executor.step(x, labels)


def _rectify_in_place(module: nn.Module, x: Tensor) -> None:
    """In place a rectifier takes no memory of its own. Where something else reads its input too, it may not: this is tried."""
    relus = [layer for layer in module.modules() if isinstance(layer, nn.ReLU)]
    found = []
    for in_place in (False, True):
        for relu in relus:
            relu.inplace = in_place
        try:
            logits = module(x)
            logits.sum().backward()
            found.append(logits.detach())
        except RuntimeError:  # autograd needs what was overwritten
            break
    if len(found) < 2 or not torch.equal(*found):
        for relu in relus:
            relu.inplace = False


def _synchronised(step: Step) -> Step:
    def waiting() -> object:
        result = step()
        torch.cuda.synchronize()
        return result

    return waiting
