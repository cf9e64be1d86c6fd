"""The table of commands, and `main`, which runs one of them.

To add a command, write `src/fixgrad/cli/NAME.py` with a typer function `command` (or a `typer.Typer` called
`app` where the command has commands of its own) and add its line to `COMMANDS`. What takes long to import
(PyTorch, numba, scikit-learn, TensorBoard) is imported inside the function, so that `fixgrad NAME --help` is
instant as well.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from fixgrad import __version__
from fixgrad.cli.errors import INTERRUPTED, report

COMMANDS: dict[str, str] = {
    "demo": "Train digits in dense float and in sparse fixed point, compare them, and cost a training step.",
    "train": "Train a network in sparse 8-bit fixed point, or in float for comparison.",
    "bench": "Measure a training step on this machine, beside plain PyTorch.",
    "report": "Show accuracy beside float training, densities and cost of a run; write RUN/report.json.",
    "prune-search": "Find the smallest densities that lose little accuracy, on images held out of the training set.",
    "inspect": "Check the numbers of a run: saturation, overflow, head-room, ranges, and what is dead, by layer.",
    "cost": "Bound the time of a training step on a machine, by its MACs and its DRAM bytes.",
    "compile": "Compile a training step into a program; show its tiling, memory layout and instructions.",
    "check": "Say whether a training step fits a machine, and if not, why and what would help.",
    "simulate": "Compile a training step and simulate its time, DRAM bytes and energy, layer by layer.",
    "verify": "Train some steps on several executors and compare every tensor bit by bit.",
    "compare": "Put a machine's simulated step beside every published platform.",
    "machine": "List, show and make descriptions of machines.",
    "rtl": "The machine as hardware: resources, bitstream, Verilog.",
}
"""Name of each command -> the line about it in `fixgrad --help`, in the order shown there.

The line is also the first line of the command's own docstring.
"""


class LazyGroup(TyperGroup):
    """The group `fixgrad`: imports the module of a command only to run it or to show its own help."""

    # typer keeps the types of a context and of a command private: hence Any.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in COMMANDS:
            self.add_command(load_command(name), name)
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """Import the module of command `name` and build what typer runs for it."""
    module = importlib.import_module(f"fixgrad.cli.{name.replace('-', '_')}")
    if hasattr(module, "app"):
        return get_command(module.app)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(module.command)
    return get_command(alone)


def build_app() -> typer.Typer:
    """The application with a placeholder, which has only a name and a line of help, for each command."""
    app = typer.Typer(
        cls=LazyGroup,
        callback=_options,
        no_args_is_help=True,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name, line in COMMANDS.items():
        app.command(name, help=line)(_placeholder())
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fixgrad` with `arguments` (by default those of the process) and return its exit code.

    0: done. 1: the work failed. 2: wrong use. 130: interrupted.
    """
    try:
        result = get_command(build_app()).main(args=arguments, prog_name="fixgrad", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    if result == INTERRUPTED:  # typer turns a KeyboardInterrupt into this exit code
        return report(KeyboardInterrupt())
    return result if isinstance(result, int) else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fixgrad {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Sparse 8-bit fixed-point training of convolutional networks, the same bits from PyTorch to an FPGA."""


def _placeholder() -> Callable[[], None]:
    def not_loaded() -> None:
        raise AssertionError("a placeholder ran: LazyGroup.resolve_command did not replace it")

    return not_loaded
