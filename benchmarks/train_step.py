"""Measures a training step of the executor against plain fp32 PyTorch, in turn in one run.

Usage: python benchmarks/train_step.py [--model vgg11] [--batch 128] [--rounds 10] [--threads N] [--path auto] [--json]

The fp32 step is eager PyTorch with channels-last tensors and momentum SGD (foreach), its quickest eager setting on a CPU.
Both executors take turns step by step, so that whatever else the machine does hits both; the ratio is taken of each pair.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fixgrad.network import Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, ReLU, initial_state
from fixgrad.network.models import MODELS, model
from fixgrad.train.executor import TorchExecutor

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
    module = float_module(network).to(memory_format=torch.channels_last)
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


def integer_step(network: Network, batch: int, path: str) -> Step:
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape) if len(shape) > 1 else np.zeros(shape)
        for name, shape in network.parameters.items()
    }
    recipe = Recipe(learning_rate=1e-3)
    executor = TorchExecutor(network, initial_state(network, weights, recipe), recipe, 1_000_000, path=path)
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


def measure(network: Network, batch: int, rounds: int, path: str) -> dict[str, Any]:
    steps = {"fp32": float_step(network, batch), "fixgrad": integer_step(network, batch, path)}
    for step in steps.values():  # compile, fill caches
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    ratios = [ours / theirs for ours, theirs in zip(times["fixgrad"], times["fp32"], strict=True)]
    return {
        "model": network.name,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "path": path,
        "fp32_ms": spread([1e3 * t for t in times["fp32"]]),
        "fixgrad_ms": spread([1e3 * t for t in times["fixgrad"]]),
        "ratio_to_fp32": spread(ratios),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vgg11", choices=list(MODELS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument("--path", default="auto", help="auto, int8, fp32 or fp64")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    result = measure(model(arguments.model), arguments.batch, arguments.rounds, arguments.path)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['model']}, batch {result['batch']}, {result['threads']} threads, {result['rounds']} rounds: median (range)")
    for name in ("fp32_ms", "fixgrad_ms", "ratio_to_fp32"):
        print(f"{name:14} {result[name]['median']:9.3f} ({result[name]['min']:.3f} to {result[name]['max']:.3f})")


if __name__ == "__main__":
    main()
