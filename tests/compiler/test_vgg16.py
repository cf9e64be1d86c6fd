"""VGG-16 at 224x224: the largest step that is promised to be compiled and simulated, and in how much memory."""

import json
import subprocess
import sys
from typing import Any

import pytest

#: Compiles and simulates a step, and prints the result with the peak of resident memory of the process in bytes.
#: (`ru_maxrss` may begin at that of the parent, which VmHWM does not.)
SCRIPT = """
import json, resource, sys
from pathlib import Path
from fixgrad.compiler import compile_step
from fixgrad.machine import preset
from fixgrad.network.models import model
from fixgrad.simulate.bounds import random_masks
from fixgrad.simulate.timing import simulate_step

network, density = model("vgg16"), float(sys.argv[1])
masks = random_masks(network, {layer.name: density for layer in network.mac_layers}) if density < 1 else {}
timing = simulate_step(compile_step(network, {f"{k}.weight": v for k, v in masks.items()}, preset("kcu1500"), 32))
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
peak = (peaks or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] * 1024
print(json.dumps({"peak": peak, "result": timing.to_dict()}))
"""
PEAK_BYTES = 2e9


@pytest.mark.slow
@pytest.mark.parametrize("density", ["1", "0.25"])
def test_a_step_of_vgg16_fits_in_two_gigabytes(density: str) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT, density], check=True, capture_output=True, text=True, timeout=900)
    found: dict[str, Any] = json.loads(run.stdout)
    result = found["result"]
    assert found["peak"] < PEAK_BYTES
    assert result["batch"] == 32
    assert len(result["layers"]) == 3 * 16 - 1
    for row in result["layers"]:
        assert row["dram_bytes"] >= row["dram_bytes_lower_bound"] > 0, (row["name"], row["phase"])
        assert 0 < row["utilisation"] <= 1
    # Convolutions keep the multipliers busy; linear layers use each weight once, and wait for their kernels.
    bounds = {(row["name"], row["phase"]): row["bound"] for row in result["layers"]}
    assert all(bounds[name, phase] == "compute" for name in ("conv2_2", "conv4_2") for phase in ("ff", "ng", "wg"))
    assert bounds["dense6", "ff"] == "load bus"
