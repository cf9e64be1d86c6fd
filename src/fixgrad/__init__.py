"""fixgrad: sparse 8-bit fixed-point training of convolutional networks, the same bits from PyTorch to an FPGA."""

__version__ = "0.1.0"

#: Public names that need PyTorch, and where they are: importing fixgrad alone must not take the time of importing it.
_LAZY = {
    "Recipe": ("fixgrad.network", "Recipe"),
    "prepare": ("fixgrad.train.prepared", "prepare"),
    "optim": ("fixgrad.train.optim", None),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'fixgrad' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LAZY[name]
    found: object = import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
