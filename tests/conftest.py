"""What holds for every test: repeatable properties, and no more threads than cores."""

import os

from hypothesis import settings

# Each worker of pytest-xdist shares the cores with the others. OpenMP reads this when PyTorch is first
# imported; a test about threads still asks for more with `torch.set_num_threads`.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: on a shared machine the time of one example says nothing. In CI the same examples every time,
# so that a failure is the fault of the change; at a desk new ones, so that they go on searching.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
