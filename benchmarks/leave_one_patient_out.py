"""Leave-one-patient-out: trains a config once for each patient of a dataset and shows every one as it was unseen.

python benchmarks/leave_one_patient_out.py configs/scratch.py DATASET runs/loo [FIELD=VALUE ...]

Each fold is an ordinary run in a folder of its own, so that the same command goes on where it was stopped. Writes
`table.md` and `by_patient.png`.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.patient_figure import by_patient
from heartseg_jax.anatomy import HEART
from heartseg_jax.config import load
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.training.train import train

BASELINES = ("all_background", "nearest_slice", "position_prior")


def number(value: float | None) -> str:
    """Return a Dice with two digits, or a dash for what is absent."""
    return "-" if value is None else f"{value:.2f}"


def main(argv: list[str]) -> None:
    """Train every fold, then write the table and the figure."""
    config_file, data, output = argv[0], argv[1], Path(argv[2])
    overrides = dict(word.split("=", 1) for word in argv[3:]) | {"data.path": data}
    summaries = {}
    for patient in read_dataset(data).patients:
        _, config = load.load(config_file, overrides | {"data.test_patients": patient.id})
        summaries[patient.id] = train(config, output / patient.id, argv)
    shorts = [s.short for s in HEART.foreground]
    lines = [
        f"| left out | slices | {' | '.join(shorts)} | mean Dice | all background | nearest slice | position prior |",
        f"|---|---|{'---|' * (len(shorts) + 4)}",
    ]
    means: dict[str, list[float]] = {}
    cases = []
    for identity, summary in summaries.items():
        cells = [number(summary["structures"][s.name]["dice"]) for s in HEART.foreground]
        compared = {"model": summary["mean_dice"], **{b: summary["baselines"][b]["mean_dice"] for b in BASELINES}}
        for name, value in compared.items():
            means.setdefault(name, []).extend([] if value is None else [value])
        cells += [number(value) for value in compared.values()]
        lines.append(f"| {identity} | {summary['slices']} | {' | '.join(cells)} |")
        with (output / identity / "evaluation" / "cases.csv").open() as file:
            cases += [{**row, "dice": float(row["dice"]) if row["dice"] else None} for row in csv.DictReader(file)]
    average = {name: sum(values) / len(values) if values else None for name, values in means.items()}
    slices = sum(summary["slices"] for summary in summaries.values())
    lines.append(f"| mean | {slices} |{' |' * len(shorts)} {' | '.join(map(number, average.values()))} |")
    (output / "table.md").write_text("\n".join(lines) + "\n")
    (output / "summaries.json").write_text(json.dumps(summaries, indent=1))
    lowest = {name: {"mean_dice": value} for name, value in average.items() if name != "model"}
    path, palette = output / "by_patient.png", Palette(HEART, "display")
    by_patient(cases, path, palette, title="Each patient left out in turn", baselines=lowest)
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
