"""Record training runs for docs/results: one JSON file a run, and their curves.

    python benchmarks/record_runs.py OUT NAME=RUN [NAME=RUN ...] --data-name "CIFAR-10 (JPEG)"

A file holds the command (paths replaced by words), commit, processor, versions, seed, and every epoch's metrics: all measured,
but for the predicted time of a step, which is simulated or a bound. The plot shows test accuracy and training loss by epoch.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

matplotlib.use("Agg")


def recorded(run: Path, data_name: str) -> dict[str, Any]:
    """What the folder of a run tells, without paths of the machine that it ran on."""
    config = json.loads((run / "config.json").read_text())
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    environment = {key: value for key, value in (config.get("environment") or {}).items() if key != "platform"}
    words = {"--data-dir": "PATH", "--out": "RUN", "--resume": "RUN", "--float-run": "RUN"}
    command = list(config["command"])
    for place, word in enumerate(command[:-1]):
        command[place + 1] = words.get(word, command[place + 1])
        if word == "--from-run":
            command[place + 1] = Path(command[place + 1]).name  # the run it begins with, and the epoch
    return {
        "command": " ".join(command),
        "data": data_name,
        "environment": environment,
        "seed": config["request"]["seed"],
        "kind": "measured; step_seconds is predicted, step_kind says how",
        "epochs": epochs,
    }


def plot(runs: dict[str, dict[str, Any]], target: Path) -> None:
    """Test accuracy and training loss of the runs by epoch."""
    figure, (accuracy, loss) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, run in runs.items():
        epochs = [line["epoch"] for line in run["epochs"]]
        accuracy.plot(epochs, [100 * line["test_accuracy"] for line in run["epochs"]], marker="o", label=name)
        loss.plot(epochs, [line["loss"] for line in run["epochs"]], marker="o", label=name)
    for axes, label in ((accuracy, "test accuracy, %"), (loss, "training loss, nats")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    accuracy.legend()
    figure.savefig(target, dpi=110)


def main() -> None:
    """Write OUT/NAME.json for every run, and OUT/curves.png."""
    parser = argparse.ArgumentParser(description="Record training runs for docs/results.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--data-name", required=True, help="what to call the data beside each figure")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {}
    for pair in options.runs:
        name, _, folder = pair.partition("=")
        runs[name] = recorded(Path(folder), options.data_name)
        text = json.dumps(runs[name], indent=1)
        (options.out / f"{name.replace(' ', '-')}.json").write_text(text + "\n")
    plot(runs, options.out / "curves.png")


if __name__ == "__main__":
    main()
