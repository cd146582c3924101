"""Leave-one-patient-out: trains a config once for each patient of a dataset and shows every one as it was unseen.

python benchmarks/leave_one_patient_out.py configs/scratch.py DATASET runs/loo [FIELD=VALUE ...]
python benchmarks/leave_one_patient_out.py configs/heart.py A,B,C runs/loo --part=C [FIELD=VALUE ...]

Of several datasets, `--part` names the one whose patients are left out in turn; what the others leave out is scored by
every fold too. Each fold is an ordinary run in a folder of its own, so that the same command goes on where it was
stopped. Writes `table.md` and `by_patient.png`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.patient_figure import by_patient
from heartseg_jax.config import load
from heartseg_jax.data.dataset.join import read_datasets
from heartseg_jax.evaluation.report import number
from heartseg_jax.figures.drawing import Palette
from heartseg_jax.training.train import train

BASELINES = ("all_background", "nearest_slice", "position_prior")


def main(argv: list[str]) -> None:
    """Train every fold, then write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="a config file, such as configs/scratch.py")
    parser.add_argument("dataset", help="its folder, or several with commas between them")
    parser.add_argument("--part", help="of several datasets, the name of the one whose patients are left out")
    parser.add_argument("output", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="FIELD=VALUE", type=lambda word: word.split("=", 1))
    asked = parser.parse_intermixed_args(argv)  # fields may stand before and after --part
    output, dataset = asked.output, read_datasets(asked.dataset)
    others = [part.name for part in dataset.members if part.name != asked.part]
    if bool(dataset.members) != bool(asked.part) or (asked.part and len(others) == len(dataset.members)):
        parser.error(f"--part must name one of several datasets: {', '.join(part.name for part in dataset.members)}")
    overrides, structures = dict(asked.overrides) | {"data.path": asked.dataset}, dataset.label_set.foreground
    summaries, elsewhere = {}, {}
    for patient in dataset.patients:
        if dataset.part_of(patient).name not in ("", asked.part):
            continue
        _, config = load.load(asked.config, overrides | {"data.test_patients": patient.id})
        whole = train(config, output / patient.own_id, argv)
        summaries[patient.own_id] = whole | whole["by_dataset"][asked.part] if asked.part else whole
        elsewhere[patient.own_id] = {name: whole["by_dataset"][name] for name in others if name in whole["by_dataset"]}
    shorts = [s.short for s in structures]
    baselines = () if asked.part else BASELINES  # of several datasets they are those of all test patients together
    titles = [*shorts, "mean Dice", *(name.replace("_", " ") for name in baselines)]
    lines = [f"| left out | slices | {' | '.join(titles)} |", f"|---|---|{'---|' * len(titles)}"]
    means: dict[str, list[float]] = {}
    cases = []
    for identity, summary in summaries.items():
        cells = [number(summary["structures"][s.name]["dice"]) for s in structures]
        compared = {"model": summary["mean_dice"], **{b: summary["baselines"][b]["mean_dice"] for b in baselines}}
        for name, value in compared.items():
            means.setdefault(name, []).extend([] if value is None else [value])
        cells += [number(value) for value in compared.values()]
        lines.append(f"| {identity} | {summary['slices']} | {' | '.join(cells)} |")
        with (output / identity / "evaluation" / "cases.csv").open() as file:
            cases += [
                {**row, "patient": identity, "dice": float(row["dice"]) if row["dice"] else None}
                for row in csv.DictReader(file)
                if row["patient"] == (f"{asked.part}/{identity}" if asked.part else identity)
            ]
    average = {name: sum(values) / len(values) if values else None for name, values in means.items()}
    slices = sum(summary["slices"] for summary in summaries.values())
    lines.append(f"| mean | {slices} |{' |' * len(shorts)} {' | '.join(map(number, average.values()))} |")
    for name in others:
        lines += ["", f"{name}, by the model of each fold:", "", f"| left out | {' | '.join(shorts)} | mean Dice |"]
        lines.append(f"|---|{'---|' * (len(shorts) + 1)}")
        for identity, found in elsewhere.items():
            if name in found:
                own = [number(found[name]["structures"][s.name]["dice"]) for s in structures]
                lines.append(f"| {identity} | {' | '.join(own)} | {number(found[name]['mean_dice'])} |")
    (output / "table.md").write_text("\n".join(lines) + "\n")
    (output / "summaries.json").write_text(json.dumps(summaries, indent=1))
    lowest = {name: {"mean_dice": value} for name, value in average.items() if name != "model"}
    path, palette = output / "by_patient.png", Palette(dataset.label_set, "display")
    by_patient(cases, path, palette, title="Each patient left out in turn", baselines=lowest)
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
