"""What a user asks for, and the plan, the data and the weights that follow from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fixgrad.errors import DataError, UsageError
from fixgrad.network import Network, Optimiser, Recipe, Schedule
from fixgrad.network.models import model as built_in
from fixgrad.numbers import Rounding
from fixgrad.train.data import DataSource, open_data
from fixgrad.train.data.progress import Progress, ignore
from fixgrad.train.defaults import Defaults, default_optimiser, default_prune_epoch, default_warmup, defaults_for
from fixgrad.train.initialise import initial_weights
from fixgrad.train.plan import Arithmetic, Plan
from fixgrad.train.pruning_request import KernelCosts, check_pruning, settled_pruning
from fixgrad.train.user_code import is_user_spec

Weights = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """The request for a run; None stands for the default of the model (see `fixgrad.train.defaults`).

    Attributes:
        model: a built-in name or ``FILE.py:FUNCTION``.
        data: a built-in name or ``FILE.py:FUNCTION``.
        data_dir: where the data's files are.
        image_size: side in pixels to which images are brought.
        augment: ``none``, ``crop``, ``flip`` or ``crop+flip`` in place of what the data set has by default.
        arithmetic: fixed point, or the float baseline.
        density: ``talk``, a number, or a file; None: dense to the end.
        prune_epoch: epochs that are trained dense.
        epochs, batch: length of the run; images in a step.
        from_run: ``RUN`` or ``RUN@epoch-0008``: begin with that checkpoint (see `fixgrad.train.fork`).
        validation: percent of the training set that is held out of it.
        allocate: ``uniform``: `density` is that of each layer; ``global``: of all weights together; ``macs``: of the machine's
            cycles. The last two share it out among the layers by magnitude.
        macs: share of the multiply-accumulates to keep, shared out likewise; in place of a density.
        prune_until: epochs after which a gradual schedule has reached the densities; None: at once.
        prune_every: steps between two changes of the masks.
        regrow: share of the live kernels in the first exchange; None: no exchange.
        regrow_until: epochs after which nothing is exchanged.
        balance: tolerance of scores within which masks are balanced; None: they are not.
        learning_rate, momentum, weight_decay, schedule, warmup_steps, stored_bits, error_rounding, update_rounding, seed,
        optimiser, beta2, epsilon: see `Recipe`.
    """

    model: str
    data: str
    data_dir: str | None = None
    image_size: int | None = None
    augment: str | None = None
    arithmetic: Arithmetic = Arithmetic.FIXED
    density: str | None = None
    prune_epoch: int | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: Schedule | None = None
    warmup_steps: int | None = None
    stored_bits: int = 24
    error_rounding: Rounding = Rounding.STOCHASTIC
    update_rounding: Rounding = Rounding.NEAREST
    seed: int = 0
    from_run: str | None = None
    validation: int | None = None
    allocate: str = "uniform"
    macs: float | None = None
    prune_until: int | None = None
    prune_every: int | None = None
    regrow: float | None = None
    regrow_until: int | None = None
    balance: float | None = None
    optimiser: Optimiser = Optimiser.SGD
    beta2: float | None = None
    epsilon: float | None = None

    @property
    def prunes(self) -> bool:
        """Whether masks are asked for."""
        return self.density is not None or self.macs is not None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON values; paths are made absolute, so that a run can be resumed from anywhere."""
        values = asdict(self)
        if self.data_dir is not None:
            values["data_dir"] = str(Path(self.data_dir).resolve())
        if self.from_run is not None:
            run, at, checkpoint = self.from_run.rpartition("@")
            values["from_run"] = f"{Path(run).resolve()}@{checkpoint}" if at else str(Path(self.from_run).resolve())
        for name in ("model", "data"):
            if is_user_spec(values[name]):
                file, _, function = values[name].rpartition(":")
                values[name] = f"{Path(file).resolve()}:{function}"
        return values

    def moved_to(self, data_dir: str) -> "RunRequest":
        """The same request for data that lie elsewhere."""
        return replace(self, data_dir=data_dir)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunRequest":
        """The request that `to_dict` wrote.

        Raises:
            DataError: it is none.
        """
        try:
            known = {field.name: values[field.name] for field in fields(cls) if field.name in values or field.name not in _LATER}
            known["arithmetic"] = Arithmetic(known["arithmetic"])
            known["schedule"] = None if known["schedule"] is None else Schedule(known["schedule"])
            for name in ("error_rounding", "update_rounding"):
                known[name] = Rounding(known[name])
            known["optimiser"] = Optimiser(known.get("optimiser", Optimiser.SGD))
            return cls(**known)
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(f"the request of the run cannot be read: {problem}") from None


#: Fields that requests of earlier versions lack.
_LATER = frozenset(
    {"from_run", "validation", "allocate", "macs", "prune_until", "prune_every", "regrow", "regrow_until", "balance"}
    | {"optimiser", "beta2", "epsilon"}
)


class Prepared(NamedTuple):
    """All that a run begins with."""

    plan: Plan
    data: DataSource
    weights: Weights


def prepare(request: RunRequest, reading: Progress = ignore, costs: KernelCosts | None = None) -> Prepared:
    """Open the data, describe the network, and settle every number.

    Args:
        request: what is asked for.
        reading: called with (images read, images in all), where that takes long.
        costs: of a kernel on a machine, where they decide what is pruned.

    Raises:
        UsageError: the request makes no sense.
        FixgradError: a file is missing or damaged, or the user's own function failed.
    """
    _check(request)
    data = open_request_data(request, reading)
    network, weights = _network(request, data)
    defaults = defaults_for(request.model)
    batch = defaults.batch if request.batch is None else request.batch
    steps = len(data.train_batches(batch, seed=request.seed, epoch=0))
    epochs = defaults.epochs if request.epochs is None else request.epochs
    densities, pruning = settled_pruning(request, network, steps, epochs, batch, costs)
    plan = Plan(
        network=network,
        arithmetic=request.arithmetic,
        recipe=_recipe(request, defaults, epochs * steps),
        epochs=epochs,
        batch=batch,
        steps_per_epoch=steps,
        prune_epoch=_prune_epoch(request, epochs),
        densities=densities,
        data=data.name,
        fingerprint=data_fingerprint(data),
        pruning=pruning,
    )
    return Prepared(plan, data, weights)


def open_request_data(request: RunRequest, reading: Progress = ignore) -> DataSource:
    """The data set of a request."""
    folder = None if request.data_dir is None else Path(request.data_dir)
    data = open_data(request.data, folder, request.image_size, augment=request.augment, progress=reading)
    return data if request.validation is None else data.with_validation(request.validation)


def data_fingerprint(data: DataSource) -> str:
    """32 hexadecimal digits of all pixels and labels, their normalisation and their augmentation."""
    parts = (data.train.fingerprint(), data.test.fingerprint(), repr(data.normalise), repr(data.augment))
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _check(request: RunRequest) -> None:
    """What can be refused before the data are opened."""
    check_pruning(request)
    if request.seed < 0:
        raise UsageError(f"seed is {request.seed}: choose 0 or more")
    if not (request.optimiser.is_adaptive or request.beta2 is request.epsilon is None):
        raise UsageError(f"--beta2 and --eps are Adam's, the optimiser is {request.optimiser}: add --optimizer adam, or leave them out")
    if not is_user_spec(request.model):
        built_in(request.model)


def _prune_epoch(request: RunRequest, epochs: int) -> int | None:
    if not request.prunes:
        return None
    return default_prune_epoch(epochs) if request.prune_epoch is None else request.prune_epoch


#: Fields of a recipe that a request may leave open.
_OPEN = ("learning_rate", "momentum", "weight_decay", "schedule", "warmup_steps", "beta2", "epsilon")


def _recipe(request: RunRequest, defaults: Defaults, total_steps: int) -> Recipe:
    settled = default_optimiser(defaults, request.optimiser) | {"warmup_steps": default_warmup(defaults, total_steps)}
    asked = {name: getattr(request, name) for name in _OPEN if getattr(request, name) is not None}
    return Recipe(
        stored_bits=request.stored_bits,
        error_rounding=request.error_rounding,
        update_rounding=request.update_rounding,
        seed=request.seed,
        optimiser=request.optimiser,
        **{**settled, **asked},
    )


def _network(request: RunRequest, data: DataSource) -> tuple[Network, Weights]:
    weights: Weights
    if is_user_spec(request.model):
        from fixgrad.train.own_model import own_model

        network, weights = own_model(request.model, data.shape, data.normalise.frac, request.seed)
    else:
        network = built_in(request.model)
        if network.input_shape != data.shape:
            raise UsageError(
                f"model {network.name} reads images {list(network.input_shape)}, but {data.name} has {list(data.shape)} "
                "(channels, height, width): choose another --model, or write one as FILE.py:FUNCTION"
            )
        network = replace(network, input_frac=data.normalise.frac)
        weights = initial_weights(network, request.seed)
    if network.classes < data.classes:
        raise UsageError(
            f"model {network.name} gives {network.classes} logits, but {data.name} has {data.classes} classes: "
            f"make its last layer {data.classes} wide"
        )
    return network, weights
