"""What a run does where the user says nothing: a recipe for each built-in network."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fixgrad.network import Schedule

#: Of a run's epochs, the share that is trained dense. The talk cuts "floating-point (dense) training to a third" (slide
#: "Pruning before convergence": 60 of about 180 epochs).
DENSE_SHARE = 1 / 3
#: A warm-up by default takes no more than this share of the run.
WARMUP_SHARE = 1 / 4


@dataclass(frozen=True, slots=True)
class Defaults:
    """Length of a run and its optimiser; see `fixgrad.network.Recipe` for the fields that both have."""

    epochs: int
    batch: int
    learning_rate: float
    warmup_steps: int
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = Schedule.LINEAR


#: By the name of a built-in network. The rate and the warm-up of vgg11 are those at which float training of the network
#: without normalisation neither stalls nor diverges.
BY_MODEL: Mapping[str, Defaults] = MappingProxyType(
    {
        "vgg11": Defaults(epochs=30, batch=128, learning_rate=0.02, warmup_steps=300),
        "vgg16": Defaults(epochs=60, batch=64, learning_rate=0.01, warmup_steps=1000),
        "resnet20": Defaults(epochs=60, batch=128, learning_rate=0.05, warmup_steps=400),
        "resnet18": Defaults(epochs=90, batch=64, learning_rate=0.05, warmup_steps=1000, weight_decay=1e-4),
        "mobilenetv2": Defaults(epochs=120, batch=64, learning_rate=0.03, warmup_steps=1000, weight_decay=4e-5),
        "digits": Defaults(epochs=20, batch=32, learning_rate=0.01, warmup_steps=40),
    }
)
#: For networks of the user's own.
GENERAL = Defaults(epochs=20, batch=64, learning_rate=0.01, warmup_steps=200)


def defaults_for(model: str) -> Defaults:
    """Defaults of the network `model`, a built-in name or another."""
    return BY_MODEL.get(model, GENERAL)


def default_warmup(defaults: Defaults, total_steps: int) -> int:
    """Steps of warm-up in a run of `total_steps`."""
    return min(defaults.warmup_steps, int(total_steps * WARMUP_SHARE))


def default_prune_epoch(epochs: int) -> int:
    """Epochs that are trained dense in a run of `epochs`: a third, rounded down."""
    return int(epochs * DENSE_SHARE)
