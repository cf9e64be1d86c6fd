"""Memories whose reads never meet a write of the same word, or whose data are not used when they do.

A read port of Amaranth gives what was there before the write. The block RAM of an ECP5 promises nothing for that case, so Yosys
adds two registers and a LUT for each bit: more than the block saves. A memory with the attribute `NO_COLLISION` waives the promise.
Simulation keeps it.
"""

import re

from fixgrad.gateware.axi.streams import NO_COLLISION


def without_promise(rtlil: str) -> str:
    """RTLIL of modules in which the read ports of marked memories promise nothing for a word that is being written."""
    return re.sub(r"^module .*?^end$", lambda module: _of_module(module[0]), rtlil, flags=re.MULTILINE | re.DOTALL)


def _of_module(text: str) -> str:
    attributes = rf"(?:^ *attribute .*\n)*?^ *attribute \\{NO_COLLISION} .*\n(?:^ *attribute .*\n)*^ *memory .* \\(\S+)$"
    marked = set(re.findall(attributes, text, re.MULTILINE))

    def waived(cell: re.Match[str]) -> str:
        found = re.search(r'MEMID "\\\\(.*)"', cell[0])
        if found is None or found[1] not in marked:
            return cell[0]
        return re.sub(r"(COLLISION_X_MASK \d+')(0+)", lambda mask: mask[1] + "1" * len(mask[2]), cell[0])

    return re.sub(r"^ *cell \$memrd_v2 .*?^ *end$", waived, text, flags=re.MULTILINE | re.DOTALL)
