"""Runs that begin with a checkpoint of another run: forks of the same training, and new training of its weights."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from fixgrad.errors import DataError, UsageError
from fixgrad.network import Optimiser
from fixgrad.network.state_arrays import StateArrays, with_moments_of
from fixgrad.train.checkpoint import Checkpoint, checkpoint_name
from fixgrad.train.plan import Plan
from fixgrad.train.request import RunRequest
from fixgrad.train.run_folder import RunFolder

#: Fields of a request that say how masks are set; all others decide the training itself.
PRUNING_FIELDS = frozenset(
    {"density", "prune_epoch", "allocate", "macs", "prune_until", "prune_every", "regrow", "regrow_until", "balance"}
)
#: Fields of a request that are settled anew where another optimiser is asked for: its rate is not that of the other.
OPTIMISER_FIELDS = ("learning_rate", "momentum", "weight_decay", "beta2", "epsilon")
#: What decides the bits of a training without pruning.
_SAME = ("network", "arithmetic", "recipe", "epochs", "batch", "steps_per_epoch", "data", "fingerprint")


class Origin(NamedTuple):
    """A checkpoint of another run.

    Attributes:
        path: folder of that run.
        checkpoint: its contents.
        digest: SHA-256 of its file.
        lines: what `metrics.jsonl` holds of its epochs.
    """

    path: Path
    checkpoint: Checkpoint
    digest: str
    lines: list[dict[str, Any]]

    def to_dict(self, first: Checkpoint) -> dict[str, Any]:
        """What ``config.json`` says of it; `first` is the checkpoint that the new run begins with."""
        taken = first.epoch
        return {
            "run": str(self.path.resolve()),
            "checkpoint": checkpoint_name(self.checkpoint.epoch),
            "sha256": self.digest,
            "epochs_taken_over": taken,
            "meaning": _meaning(first, self.checkpoint.plan.recipe.optimiser),
        }


def _meaning(first: Checkpoint, theirs: Optimiser) -> str:
    if first.plan.origin is None:
        return f"the first {first.epoch} epochs are those of this very plan: the bits are those of a run without --from-run"
    if first.epoch:
        return f"goes on after {first.epoch} epochs; masks were set before, so this plan alone would not give the same bits"
    if theirs.is_adaptive != first.plan.recipe.optimiser.is_adaptive:
        return "begins anew with the weights, scales and masks of the checkpoint, and with moments of zero, as its optimiser is another"
    return "begins anew with the weights, momenta, scales and masks of the checkpoint"


def split_spec(spec: str) -> tuple[Path, str | None]:
    """The folder and the checkpoint of ``RUN`` or ``RUN@epoch-0008``; None: the newest."""
    path, at, name = spec.rpartition("@")
    return (Path(path), name) if at and "/" not in name else (Path(spec), None)


def read_origin(spec: str) -> Origin:
    """The checkpoint that ``RUN`` or ``RUN@epoch-0008`` names.

    Raises:
        UsageError: there is no such run or checkpoint.
        DataError: it is damaged.
    """
    path, name = split_spec(spec)
    folder = RunFolder.open(path)
    checkpoint = folder.load(name)
    digest = sha256(folder.checkpoint_path(checkpoint.epoch).read_bytes()).hexdigest()
    lines = [line for line in folder.metrics() if line.get("epoch", checkpoint.epoch + 1) <= checkpoint.epoch]
    return Origin(path, checkpoint, digest, lines)


def forked_request(spec: str, changes: Mapping[str, Any]) -> RunRequest:
    """The request of a run that begins with the checkpoint of another: that of the other run, with `changes`.

    Pruning that is not changed is taken over as a whole. Another optimiser has its own defaults. Where pruning is changed and
    nothing says when, a run that goes on prunes at the checkpoint, and one that begins anew at once.

    Raises:
        UsageError, DataError: as `read_origin`.
    """
    origin = read_origin(spec)
    try:
        parent = RunRequest.from_dict(RunFolder(origin.path).config()["request"])
    except KeyError as missing:
        raise DataError(f"{origin.path}/config.json lacks {missing}: no run can be begun from it") from None
    if changes.keys() & PRUNING_FIELDS:
        parent = replace(parent, **{field: _UNASKED[field] for field in PRUNING_FIELDS})
    if changes.get("optimiser", parent.optimiser) != parent.optimiser:
        parent = replace(parent, **{field: _UNASKED[field] for field in OPTIMISER_FIELDS})
    request = replace(parent, from_run=f"{origin.path}@{checkpoint_name(origin.checkpoint.epoch)}", **changes)
    same = all(value == getattr(parent, field) for field, value in changes.items() if field not in PRUNING_FIELDS)
    if same:
        _refuse_complete(origin, origin.checkpoint.plan)
    if request.prunes and request.prune_epoch is None:
        request = replace(request, prune_epoch=origin.checkpoint.epoch if same else 0)
    return request


#: What a request says where nothing is asked for.
_UNASKED: Mapping[str, Any] = asdict(RunRequest(model="", data=""))


def beginning(plan: Plan, origin: Origin) -> Checkpoint:
    """The checkpoint that a run of `plan` begins with; its plan says where it comes from, if that decides bits.

    Where the training is the same (network, data, recipe, length), the run goes on after the checkpoint's epochs. If neither
    run prunes before them, or both alike, these epochs are the plan's own. Any other training begins anew at step 0, with the
    moments of the checkpoint, or with zeros where the optimiser keeps others.

    Raises:
        UsageError: the checkpoint is of another network or other number formats, or leaves nothing to train.
    """
    saved = origin.checkpoint
    theirs, name = saved.plan, f"{origin.path}@{checkpoint_name(saved.epoch)}"
    if plan.network != theirs.network:
        raise UsageError(f"{name} is of the network {theirs.network.name}, this run trains {plan.network.name}: they must be equal")
    if plan.arithmetic != theirs.arithmetic:
        raise UsageError(f"{name} was trained in {theirs.arithmetic}, this run trains in {plan.arithmetic}: use the same")
    for field in ("stored_bits", "momentum_bits"):
        ours, other = getattr(plan.recipe, field), getattr(theirs.recipe, field)
        if ours != other:
            raise UsageError(f"{name} has {field} {other}, this run {ours}: a fork keeps the number formats")
    if any(getattr(plan, field) != getattr(theirs, field) for field in _SAME):
        state = with_moments_of(plan.recipe.optimiser, saved.state)
        return Checkpoint(replace(plan, origin=origin.digest), 0, (), _from_step_0(state))
    _refuse_complete(origin, plan)
    if _alike(plan, theirs, saved.epoch):
        plan = replace(plan, origin=theirs.origin)
    elif plan.prune_epoch is not None and plan.prune_epoch < saved.epoch:
        raise UsageError(
            f"prune epoch is {plan.prune_epoch}, but {name} has {saved.epoch} epochs behind it: choose {saved.epoch} or more"
        )
    else:
        plan = replace(plan, origin=origin.digest)
    return Checkpoint(plan, saved.epoch, saved.history, saved.state)


def _refuse_complete(origin: Origin, plan: Plan) -> None:
    epoch = origin.checkpoint.epoch
    if epoch >= plan.epochs:
        name = f"{origin.path}@{checkpoint_name(epoch)}"
        raise UsageError(f"{name} is complete: all {plan.epochs} epochs are done; choose an earlier checkpoint, or other --epochs")


def _alike(plan: Plan, theirs: Plan, epochs: int) -> bool:
    """Whether both set the same masks in the first `epochs` epochs."""
    if (plan.prune_epoch, plan.densities, plan.pruning) == (theirs.prune_epoch, theirs.densities, theirs.pruning):
        return True
    return all(each.prune_epoch is None or each.prune_epoch >= epochs for each in (plan, theirs))


def _from_step_0(state: StateArrays) -> StateArrays:
    """The same weights, moments, scales and masks, with no step done and no overflow seen."""
    values = {**state.values, "step": 0}
    if "overflows" in values:
        values["overflows"] = []
    return StateArrays(state.arrays, values)
