"""`fixgrad verify`: do several executors compute the same bits?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fixgrad.cli.step_case import (
    DensityOption,
    JsonOption,
    MachineOption,
    SeedOption,
    ShapeOption,
    StepCase,
    chosen_case,
)
from fixgrad.cli.verify_devices import CaseDevices, ProgressLines
from fixgrad.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fixgrad.network import Network, State
    from fixgrad.simulate.functional import Subject, Verification

EXECUTORS = ("torch", "functional", "rtl", "reference")
DIFFERENT = 1
#: Where a random program that failed is saved.
FAILURES = Path("failures")
#: MACs of a forward pass from which on importing torch to choose the scales takes less time than NumPy takes to.
_MANY_MACS = 1 << 30
_PLURALS = {
    "activation": "activations",
    "error": "errors",
    "gradient": "gradients",
    "momentum": "momenta",
    "stored": "stored tensors",
    "operand": "operands",
    "running": "running statistics",
    "statistic": "range measurements",
    "memory": "bytes of memory",
}


def command(
    model: Annotated[
        str | None, typer.Option(help="vgg11, vgg16, digits, or FILE.py:FUNCTION that returns an nn.Module.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = 32,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2,
    executors: Annotated[
        str, typer.Option(help="Two or more of torch, functional, rtl, reference; the first is held against the others.")
    ] = "torch,functional",
    density: DensityOption = None,
    machine: MachineOption = "kcu1500",
    seed: SeedOption = 0,
    input_shape: ShapeOption = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the waveform of the RTL (VCD; large). For few cycles.")
    ] = None,
    hostile: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="The RTL's memory rests at random and answers out of order.")
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, metavar="COUNT", help="Instead of a network: random programs from --seed on, in RTL.")
    ] = None,
    program: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of a network: a program that failed and was saved, in RTL.")
    ] = None,
    cycles: Annotated[
        bool, typer.Option("--cycles", help="The RTL's cycles against the timing simulator, as Markdown, and the step's time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train some steps on several executors and compare every tensor bit by bit.

    Weights, images and labels are random. Compared are all activations, errors, gradients, momenta, stored weights, 8-bit
    operands and range measurements of every step. Of functional and rtl, which run the compiled program, the whole memory
    is compared, byte for byte. The exit code is 1 on any difference; the first one is named. Random programs that differ are
    shrunk and saved in the folder failures.
    """
    if random is not None or program is not None:
        from fixgrad.cli.verify_programs import run_case, run_random

        if model is not None or (random is not None and program is not None):
            raise UsageError("--model, --random and --program are three different things to compare: choose one")
        well = run_case(program, trace, hostile) if program else run_random(machine, random or 1, seed, hostile, FAILURES)
        if not well:
            raise typer.Exit(DIFFERENT)
        return
    chosen = _chosen_executors(executors)
    if "rtl" not in chosen and (trace is not None or hostile is not None or cycles):
        raise UsageError("--trace, --hostile and --cycles are for the executor rtl: name it in --executors")
    if density is None and model == "vgg11":
        density = "talk"
    case = chosen_case(None, model, batch, density, seed, input_shape)
    devices = CaseDevices(case, machine, trace, hostile)
    result = _verify(case, chosen, devices, steps, seed)
    compared = devices.cycles() if cycles else None
    if as_json:
        print(json.dumps(result.to_dict() | (compared.to_dict() if compared else {}), indent=2))
    else:
        _print(result, case)
        if compared:
            from fixgrad.simulate.cycle_comparison import rate_lines, table

            print("", table(compared.rows), "", *rate_lines(compared), sep="\n")
    if not result.equal:
        raise typer.Exit(DIFFERENT)


def _chosen_executors(names: str) -> list[str]:
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in EXECUTORS]
    if unknown:
        raise UsageError(f"--executors: {unknown[0]!r} is unknown: choose two or more of {', '.join(EXECUTORS)}")
    if len(set(chosen)) < 2:
        raise UsageError(f"--executors is {names!r}: name two or more different ones of {', '.join(EXECUTORS)}")
    return chosen


def _verify(case: StepCase, executors: list[str], devices: CaseDevices, steps: int, seed: int) -> "Verification":
    from fixgrad.simulate.functional import verify

    if {"functional", "rtl"} & set(executors):
        devices.program()  # what does not fit is said before anything runs
    batches = list(_batches(case.network, case.batch, steps, seed))
    macs = case.batch * sum(layer.macs(case.network.shapes[layer.name]) for layer in case.network.mac_layers)
    state = _calibrated(case, batches[0], "torch" in executors or macs > _MANY_MACS, steps, seed)
    subjects = [_subject(name, case, state, devices, steps) for name in executors]
    return verify(case.network, subjects, batches, ProgressLines().step)


def _batches(
    network: "Network", batch: int, steps: int, seed: int
) -> "Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]":
    """Codes of about the spread of normalised images, and labels."""
    import numpy as np

    rng = np.random.default_rng(seed)
    spread = 2.0**network.input_frac
    for _ in range(steps):
        x = np.clip(np.rint(rng.normal(0.0, spread, (batch, *network.input_shape))), -127, 127).astype(np.int8)
        yield x, rng.integers(0, network.classes, batch)


def _initial(case: StepCase, seed: int) -> "State":
    """Kaiming-normal weights, pruned by the masks, and normalisations near the identity."""
    import numpy as np

    from fixgrad.network import initial_state

    rng = np.random.default_rng([seed, 1])
    weights = {}
    for name, shape in case.network.parameters.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 0
        weights[name] = rng.normal(0.0, np.sqrt(2 / fan_in), shape) if fan_in else np.zeros(shape)
    for layer in case.network.batch_norms:
        weights[layer.gamma], weights[layer.beta] = rng.normal(1.0, 0.1, layer.channels), rng.normal(0.0, 0.1, layer.channels)
    state = initial_state(case.network, weights, case.recipe)
    for name, mask in case.masks.items():
        if not mask.all():
            state.parameters[name].prune(mask)
    return state


def _calibrated(case: StepCase, batch: Any, with_torch: bool, steps: int, seed: int) -> "State":
    """The state before the first step: every tensor has a scale. Torch is much faster at it, where it is there anyway."""
    state = _initial(case, seed)
    if with_torch:
        from fixgrad.train.executor import TorchExecutor

        executor = TorchExecutor(case.network, state, case.recipe, steps)
        executor.calibrate(*batch)
        return executor.to_state()
    from fixgrad.network.reference import ReferenceExecutor

    ReferenceExecutor(case.network, state, case.recipe, steps).calibrate(*batch)
    return state


def _subject(name: str, case: StepCase, state: "State", devices: CaseDevices, steps: int) -> "Subject":
    from fixgrad.simulate.functional import FunctionalExecutor, Subject, functional_subject, reference_subject

    if name == "functional":
        return functional_subject(FunctionalExecutor(devices.program(), state, steps))
    if name == "rtl":
        return devices.rtl(state, steps)
    if name == "reference":
        from fixgrad.network.reference import ReferenceExecutor

        return reference_subject(ReferenceExecutor(case.network, _copy(case.network, state), case.recipe, steps))
    from fixgrad.train.executor import TorchExecutor

    executor = TorchExecutor(case.network, state, case.recipe, steps)

    def step(x: "NDArray[np.integer[Any]]", labels: "NDArray[np.integer[Any]]") -> Any:
        return executor.step(x, labels, trace=True).trace

    return Subject("torch", step, executor.to_state)


def _copy(network: "Network", state: "State") -> "State":
    from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays

    return state_from_arrays(network, *state_to_arrays(state))


def _print(result: "Verification", case: StepCase) -> None:
    names = " = ".join(result.executors)
    kinds = ", ".join(f"{count:,} {_PLURALS[kind]}" for kind, count in result.compared.items()) or "nothing"
    if result.equal:
        print(f"{names}: equal in every bit, {result.steps} steps of {case.network.name}, batch {case.batch}")
        print(f"compared: {kinds}")
    else:
        print(f"{' and '.join(result.executors)} differ; compared before: {kinds}")
        print(result.first_mismatch)
