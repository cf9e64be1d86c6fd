"""Time and memory of a training step of the executor against plain fp32 PyTorch, in turn in one run.

    python benchmarks/train_step.py [--model vgg11] [--batch 128] [--density talk] [--rounds 10] [--json]

The fp32 step is eager PyTorch with channels-last tensors and momentum SGD (foreach), its quickest eager setting on a CPU.
Both take turns step by step, so that whatever else the machine does hits both; the ratio is taken of each pair. The peak of
resident memory is measured in a process each, which does nothing else.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixgrad.network import Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, ReLU, initial_state
from fixgrad.network.models import MODELS, model
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.pruning import layer_densities, magnitude_masks

Step = Callable[[], object]


def float_module(network: Network) -> nn.Sequential:
    """The same network in fp32."""
    modules: list[nn.Module] = []
    for layer in network:
        match layer:
            case Conv2d(geometry=g):
                conv = nn.Conv2d(
                    layer.in_channels, layer.filters, layer.kernel, g.stride, g.padding, g.dilation, g.groups, layer.bias
                )
                modules += [conv, nn.ReLU(inplace=True)] if layer.relu else [conv]
            case Linear():
                linear = nn.Linear(layer.in_features, layer.out_features, layer.bias)
                modules += [linear, nn.ReLU(inplace=True)] if layer.relu else [linear]
            case MaxPool2d():
                modules.append(nn.MaxPool2d(layer.window))
            case ReLU():
                modules.append(nn.ReLU())
            case Flatten():
                modules.append(nn.Flatten())
    return nn.Sequential(*modules)


def float_step(network: Network, batch: int) -> Step:
    module = float_module(network)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, foreach=True)
    x = torch.randn(batch, *network.input_shape)
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(network.classes, (batch,))

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(module(x), labels)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def integer_step(network: Network, batch: int, path: str, density: str | None) -> Step:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape) if len(shape) > 1 else np.zeros(shape)
        for name, shape in network.parameters.items()
    }
    recipe = Recipe(learning_rate=1e-3)
    executor = TorchExecutor(network, initial_state(network, weights, recipe), recipe, 1_000_000, path=path)
    if density is not None:
        for name, mask in magnitude_masks(weights, layer_densities(density, network), {}).items():
            executor.prune(name, mask)
    x = np.clip(rng.normal(0, 64, (batch, *network.input_shape)), -127, 127).astype(np.int8)
    labels = rng.integers(0, network.classes, batch)
    executor.calibrate(x, labels)
    return lambda: executor.step(x, labels)


def seconds(step: Step) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def build(which: str, options: argparse.Namespace) -> Step:
    network = model(options.model)
    if which == "fp32":
        return float_step(network, options.batch)
    return integer_step(network, options.batch, options.path, options.density)


def warm(step: Step) -> Step:
    """The step after its first calls, which compile and fill caches."""
    step()
    step()
    return step


def own_peak_mb() -> float:
    """Peak of resident memory of this process in MB. (Linux's `ru_maxrss` starts at that of the parent; VmHWM does not.)"""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6


def peak_mb(which: str) -> float:
    """Peak of resident memory of a process that takes three steps, in MB (10^6 bytes)."""
    command = [sys.executable, *sys.argv, "--peak-of", which]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    steps = {which: warm(build(which, options)) for which in ("fp32", "fixgrad")}
    times: dict[str, list[float]] = {which: [] for which in steps}
    for _ in range(options.rounds):
        for which, step in steps.items():
            times[which].append(seconds(step))
    ratios = [ours / theirs for ours, theirs in zip(times["fixgrad"], times["fp32"], strict=True)]
    peaks = {which: peak_mb(which) for which in steps}
    return {
        "model": options.model,
        "batch": options.batch,
        "density": options.density or "dense",
        "path": options.path,
        "rounds": options.rounds,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "fp32_ms": spread([1e3 * t for t in times["fp32"]]),
        "fixgrad_ms": spread([1e3 * t for t in times["fixgrad"]]),
        "ratio_to_fp32" if options.density is None else "ratio_to_fp32_sparse": spread(ratios),
        "fp32_peak_mb": peaks["fp32"],
        "fixgrad_peak_mb": peaks["fixgrad"],
        "peak_memory_ratio": peaks["fixgrad"] / peaks["fp32"],
    }


def show(result: dict[str, Any]) -> None:
    for name, value in result.items():
        if isinstance(value, dict):
            value = f"{value['median']:.3f} ({value['min']:.3f} to {value['max']:.3f})"
        print(f"{name:22} {value:.3f}" if isinstance(value, float) else f"{name:22} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="vgg11", choices=list(MODELS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--density", help="prune before measuring: talk, a number, or a file")
    parser.add_argument("--path", default="auto", help="auto, int8, fp32 or fp64")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, help="of both; PyTorch's own choice by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak-of", choices=("fp32", "fixgrad"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak_of:
        warm(build(options.peak_of, options))()
        print(own_peak_mb())
        return
    result = measure(options)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
