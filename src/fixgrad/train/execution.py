"""On what a run is computed: device, kernels, workers. Nothing of it changes a bit, so no plan and no checkpoint holds it."""

import os
from dataclasses import dataclass

from fixgrad.errors import UsageError
from fixgrad.train.collective import SINGLE, Collective


@dataclass(frozen=True, slots=True)
class Execution:
    """On what a run is computed.

    Attributes:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        path: of integer products: ``"auto"``, ``"int8"``, ``"fp32"`` or ``"fp64"``.
        fused: whether pointwise functions may be compiled ones.
        collective: the workers of the run.
    """

    device: str = "cpu"
    path: str = "auto"
    fused: bool = True
    collective: Collective = SINGLE


#: One process on the CPU, as fast as it can.
HERE = Execution()


def usable_device(name: str) -> str:
    """The device of that name, once it is known to be there; ``"cuda"`` becomes the GPU of this worker.

    Raises:
        UsageError: it is not.
    """
    if name == "cpu":
        return name
    import torch

    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise UsageError(f"device {name!r} is unknown: choose cpu, cuda, or cuda:N for one of several GPUs")
    if not torch.cuda.is_available():
        build = "is built without CUDA" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
        raise UsageError(f"device {name}: PyTorch {torch.__version__}, which {build}, finds no GPU here: leave --device out")
    count = torch.cuda.device_count()
    number = int(index) if index else int(os.environ.get("LOCAL_RANK", "0")) % count
    if number >= count:
        raise UsageError(f"device {name} is not there: this machine has {count} GPU(s), cuda:0 to cuda:{count - 1}")
    return f"cuda:{number}"
