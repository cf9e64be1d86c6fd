"""Tuples of arrays as one reference each, inside of compiled loops.

numba hands a tuple of arrays to a function as all fields of all arrays, hundreds of values, and takes a minute to compile what
does so. A reference is one value; its fields have the tuple's names, so that the loops read like ordinary Python.
"""

from typing import Any

from numba import types
from numba.experimental import structref as untyped

from fixgrad.simulate.timing.channel_state import Channels, LoadState, Traffic
from fixgrad.simulate.timing.event_state import Plan, State

structref: Any = untyped


def _reference(of: Any) -> Any:
    """What makes a reference of the fields of a named tuple, in compiled code."""
    name = f"{of.__name__}Reference"
    kind = structref.register(type(f"{name}Type", (types.StructRef,), {}))
    made = type(name, (structref.StructRefProxy,), {})
    structref.define_constructor(made, kind, of._fields)
    structref.define_attributes(kind)
    return made


refer_to_channels, refer_to_traffic, refer_to_load, refer_to_plan, refer_to_state = (
    _reference(of) for of in (Channels, Traffic, LoadState, Plan, State)
)
