"""What a run does where the user says nothing: a recipe for each built-in network."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fixgrad.network import Optimiser, Schedule

#: Of a run's epochs, the share that is trained dense. The talk cuts "floating-point (dense) training to a third" (slide
#: "Pruning before convergence": 60 of about 180 epochs).
DENSE_SHARE = 1 / 3
#: A warm-up by default takes no more than this share of the run.
WARMUP_SHARE = 1 / 4


@dataclass(frozen=True, slots=True)
class Defaults:
    """Length of a run and its optimiser; see `fixgrad.network.Recipe` for the fields that both have.

    Attributes:
        adam_rate: learning rate of Adam, where `learning_rate` is that of SGD.
    """

    epochs: int
    batch: int
    learning_rate: float
    warmup_steps: int
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.LINEAR
    adam_rate: float = 1e-3


#: By the name of a built-in network. The rate and the warm-up of vgg11 are those at which float training of the network
#: without normalisation neither stalls nor diverges.
BY_MODEL: Mapping[str, Defaults] = MappingProxyType(
    {
        "vgg11": Defaults(epochs=30, batch=128, learning_rate=0.02, warmup_steps=300, adam_rate=3e-4),
        "vgg16": Defaults(epochs=60, batch=64, learning_rate=0.01, warmup_steps=1000, adam_rate=3e-4),
        "resnet20": Defaults(epochs=60, batch=128, learning_rate=0.05, warmup_steps=400),
        "resnet18": Defaults(epochs=90, batch=64, learning_rate=0.05, warmup_steps=1000, weight_decay=1e-4),
        "mobilenetv2": Defaults(epochs=120, batch=64, learning_rate=0.03, warmup_steps=1000, weight_decay=4e-5),
        "digits": Defaults(epochs=20, batch=32, learning_rate=0.01, warmup_steps=40),
    }
)
#: What Adam takes for weight decay: nothing as a part of the gradient, where Adam would scale it with the gradient, and the usual
#: share of the rate beside it (the defaults of torch.optim.Adam and AdamW).
ADAM_DECAY: Mapping[Optimiser, float] = MappingProxyType({Optimiser.ADAM: 0.0, Optimiser.ADAMW: 1e-2})
#: For networks of the user's own.
GENERAL = Defaults(epochs=20, batch=64, learning_rate=0.01, warmup_steps=200)


def defaults_for(model: str) -> Defaults:
    """Defaults of the network `model`, a built-in name or another."""
    return BY_MODEL.get(model, GENERAL)


def default_optimiser(defaults: Defaults, optimiser: Optimiser) -> dict[str, Any]:
    """The fields of a recipe that decide an update, by their names."""
    adaptive = optimiser.is_adaptive
    return {
        "learning_rate": defaults.adam_rate if adaptive else defaults.learning_rate,
        "momentum": defaults.momentum,
        "weight_decay": ADAM_DECAY[optimiser] if adaptive else defaults.weight_decay,
        "schedule": defaults.schedule,
    }


def default_warmup(defaults: Defaults, total_steps: int) -> int:
    """Steps of warm-up in a run of `total_steps`."""
    return min(defaults.warmup_steps, int(total_steps * WARMUP_SHARE))


def default_prune_epoch(epochs: int) -> int:
    """Epochs that are trained dense in a run of `epochs`: a third, rounded down."""
    return int(epochs * DENSE_SHARE)
