"""What a program must not do, and how it is reported."""

from fixgrad.errors import FixgradError


class Fault(Exception):  # noqa: N818 - the machine's word for it
    """An illegal access, found by a unit; the simulator adds which instruction it was."""


class IllegalInstruction(FixgradError):  # noqa: N818 - named for what the program holds
    """A program did what the machine cannot do.

    Attributes:
        index: position of the instruction in the program.
        text: its disassembly.
        reason: what is wrong.
    """

    def __init__(self, index: int, text: str, reason: str) -> None:
        self.index, self.text, self.reason = index, text, reason
        super().__init__(f"instruction {index}: {reason}: {text}")
