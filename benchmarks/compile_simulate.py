"""Time and memory of compiling a training step and of simulating its timing.

    python benchmarks/compile_simulate.py [--models vgg11,vgg16] [--batch 32] [--densities 1,0.25] [--machine kcu1500] [--json]

Each case runs in a process of its own, which does nothing else, so that its peak of resident memory is its own.
The first simulation of a long program ever also compiles its inner loops, which numba then keeps in its cache.
Masks are kernel-wise and random; vgg11 may also have the talk's densities (`talk`).
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fixgrad.compiler import Program, compile_step
from fixgrad.machine import preset
from fixgrad.network.models import MODELS, model
from fixgrad.simulate.bounds import random_masks
from fixgrad.simulate.timing import simulate_step
from fixgrad.sparse import TALK_DENSITIES


def own_peak_mb() -> float:
    """Peak of resident memory of this process in MB. (Linux's `ru_maxrss` starts at that of the parent; VmHWM does not.)"""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6


def compiled(name: str, density: str, batch: int, machine: str) -> Program:
    network = model(name)
    masks = {}
    if density != "1":
        densities = TALK_DENSITIES if density == "talk" else {layer.name: float(density) for layer in network.mac_layers}
        masks = {f"{layer}.weight": mask for layer, mask in random_masks(network, densities).items()}
    return compile_step(network, masks, preset(machine), batch)


class Stopwatch:
    """Wall-clock and processor time since it was made or asked last."""

    def __init__(self) -> None:
        self._last = time.perf_counter(), time.process_time()

    def lap(self) -> tuple[float, float]:
        now = time.perf_counter(), time.process_time()
        wall, processor = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return wall, processor


def measure(name: str, density: str, batch: int, machine: str) -> dict[str, Any]:
    """One case, in this process."""
    watch = Stopwatch()
    program = compiled(name, density, batch, machine)
    compile_wall, compile_cpu = watch.lap()
    compile_peak = own_peak_mb()
    watch.lap()
    timing = simulate_step(program)
    simulate_wall, simulate_cpu = watch.lap()
    return {
        "model": name,
        "density": density,
        "batch": batch,
        "machine": machine,
        "instructions": timing.instructions,
        "compile_s": compile_wall,
        "compile_cpu_s": compile_cpu,
        "compile_peak_mb": compile_peak,
        "simulate_s": simulate_wall,
        "simulate_cpu_s": simulate_cpu,
        "peak_mb": own_peak_mb(),
        "step_ms": timing.us / 1000,
        "gops": timing.gops,
    }


def in_process(case: list[str]) -> dict[str, Any]:
    """One case, in a process of its own."""
    output = subprocess.run([sys.executable, __file__, "--case", *case], check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output)
    return found


def show(results: list[dict[str, Any]]) -> None:
    print(f"{'model':8}{'density':>8}{'instructions':>14}{'compile s (cpu)':>18}{'simulate s (cpu)':>18}{'peak MB':>9}{'GOP/s':>9}")
    for row in results:
        times = [f"{row[f'{stage}_s']:.1f} ({row[f'{stage}_cpu_s']:.1f})" for stage in ("compile", "simulate")]
        print(
            f"{row['model']:8}{row['density']:>8}{row['instructions']:>14,}{times[0]:>18}{times[1]:>18}"
            f"{row['peak_mb']:>9,.0f}{row['gops']:>9,.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="vgg11,vgg16", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--densities", default="1,0.25", help="live kernels: numbers, or (vgg11) talk")
    parser.add_argument("--batch", default="32")
    parser.add_argument("--machine", default="kcu1500")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        name, density, batch, machine = options.case
        print(json.dumps(measure(name, density, int(batch), machine)))
        return
    results = [
        in_process([name, density, options.batch, options.machine])
        for name in options.models.split(",")
        for density in options.densities.split(",")
    ]
    if options.json:
        print(json.dumps({"cpu": platform.processor() or platform.machine(), "cases": results}, indent=2))
    else:
        show(results)


if __name__ == "__main__":
    main()
