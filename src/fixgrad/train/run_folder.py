"""The folder of a run: ``config.json``, ``metrics.jsonl``, ``checkpoints/epoch-0003.safetensors``, ``tensorboard/``."""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fixgrad.errors import DataError, UsageError
from fixgrad.train.checkpoint import SUFFIX, Checkpoint, checkpoint_name, read_checkpoint, write_checkpoint
from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.sealed_file import write_atomically

CONFIG = "config.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
_LOCK = "lock"
_NAME = re.compile(r"epoch-(\d{4})")


class RunFolder:
    """A run on disk.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """A new run in a folder that is not there yet, is empty, or holds no more than a `create` that was killed.

        Raises:
            UsageError: there is something at `path`.
        """
        cls.check_free(path)
        (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder.lock()
        folder.write_json(CONFIG, config)
        return folder

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise UsageError unless a run can be created at `path`."""
        if path.exists() and not _is_unused(path):
            how = f"continue it with `fixgrad train --resume {path}`, or " if (path / CONFIG).exists() else ""
            raise UsageError(f"{path} already exists: {how}choose another --out")

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            UsageError: there is no run at `path`.
        """
        folder = cls(path)
        folder.check_run()
        return folder

    def check_run(self) -> None:
        """Raise UsageError unless there is a run here."""
        if not (self.path / CONFIG).is_file():
            raise UsageError(f"{self.path} holds no run ({CONFIG} is missing): name the folder that --out made")

    @property
    def tensorboard(self) -> Path:
        """Folder of the event files."""
        return self.path / TENSORBOARD

    def lock(self) -> None:
        """Keep other processes from writing into the run until this one ends, however it ends.

        Raises:
            UsageError: another process is at it.
        """
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{self.path} is being trained by another process: wait for it, or end it first") from None

    def release(self) -> None:
        """Let others write into the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def config(self) -> dict[str, Any]:
        """What `create` was given.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path / CONFIG
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}): the run cannot be continued from it") from None
        if not isinstance(config, dict):
            raise DataError(f"{path} holds no run: expected a JSON object")
        return config

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a file of the folder, atomically."""
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / name, text.encode())

    def checkpoint_path(self, epoch: int) -> Path:
        """Where the checkpoint of `epoch` lies."""
        return self.path / CHECKPOINTS / f"{checkpoint_name(epoch)}{SUFFIX}"

    def epochs(self) -> list[int]:
        """Epochs of which there is a checkpoint, whole or not, ascending."""
        matches = (_NAME.fullmatch(path.name.removesuffix(SUFFIX)) for path in (self.path / CHECKPOINTS).glob(f"*{SUFFIX}"))
        return sorted(int(match.group(1)) for match in matches if match)

    def save(self, checkpoint: Checkpoint, keep: int | None = None) -> None:
        """Write a checkpoint; with `keep`, remove the oldest so that so many are left."""
        write_checkpoint(self.checkpoint_path(checkpoint.epoch), checkpoint)
        if keep is not None:
            for epoch in self.epochs()[:-keep]:
                self.checkpoint_path(epoch).unlink(missing_ok=True)

    def load(self, name: str | None = None) -> Checkpoint:
        """The newest checkpoint, or the one of that name (``epoch-0002``, or its number).

        Raises:
            UsageError: there is none (of that name).
            DataError: it is damaged. The newest good one before it is named, with the command that goes on from it.
        """
        epoch = self._epoch_of(name)
        try:
            return read_checkpoint(self.checkpoint_path(epoch))
        except DataError as error:
            raise DataError(f"{error}; {self._advice(epoch)}") from None

    def _epoch_of(self, name: str | None) -> int:
        epochs = self.epochs()
        if not epochs:
            raise UsageError(f"{self.path} has no checkpoint: start again with another --out")
        if name is None:
            return epochs[-1]
        digits = _NAME.fullmatch(Path(name).name.removesuffix(SUFFIX))
        epoch = int(digits.group(1)) if digits else int(name) if name.isdecimal() else -1
        if epoch not in epochs:
            there = f"{checkpoint_name(epochs[0])} to {checkpoint_name(epochs[-1])}"
            raise UsageError(f"{self.path} has no checkpoint {name!r}: it has {len(epochs)}, {there}")
        return epoch

    def _advice(self, damaged: int) -> str:
        for epoch in reversed([epoch for epoch in self.epochs() if epoch < damaged]):
            try:
                read_checkpoint(self.checkpoint_path(epoch))
            except DataError:
                continue
            name = checkpoint_name(epoch)
            return (
                f"the newest good checkpoint before it is {name}: "
                f"continue from it with `fixgrad train --resume {self.path} --from {name}`"
            )
        return "no good checkpoint is left before it: start again with another --out"

    def set_back(self, checkpoint: Checkpoint) -> None:
        """Make `checkpoint` the newest: later checkpoints are renamed ``*.discarded``, later metrics removed."""
        for epoch in self.epochs():
            if epoch > checkpoint.epoch:
                path = self.checkpoint_path(epoch)
                path.replace(path.with_name(f"{path.name}.discarded"))
        for leftover in (self.path / CHECKPOINTS).glob("*.tmp"):
            leftover.unlink()
        self._rewrite_metrics(checkpoint.history)

    def _rewrite_metrics(self, history: Iterable[EpochMetrics]) -> None:
        """A line for each epoch of `history`; the times of those lines that are still right are kept."""
        written = {line.get("epoch"): line for line in self.metrics()}
        lines = []
        for metrics in history:
            line = written.get(metrics.epoch, {})
            times = {key: value for key, value in line.items() if key not in metrics.to_dict()}
            lines.append(_json_line({**metrics.to_dict(), **times}))
        write_atomically(self.path / METRICS, "".join(lines).encode())

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``."""
        with open(self.path / METRICS, "a", encoding="utf-8") as file:
            file.write(_json_line(line))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl`` that are whole."""
        path = self.path / METRICS
        if not path.exists():
            return []
        lines = []
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # cut short by a kill
                continue
            if isinstance(line, dict):
                lines.append(line)
        return lines


def _is_unused(path: Path) -> bool:
    """Whether there is an empty folder, or one in which a run was killed before its configuration was written."""
    if not path.is_dir():
        return False
    inside = {entry.name for entry in path.iterdir()}
    return inside <= {CHECKPOINTS, _LOCK, f"{CONFIG}.tmp"} and not any((path / CHECKPOINTS).glob("*"))


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"
