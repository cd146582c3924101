"""How long each stage of `predict` takes, on a phantom study or on a volume that is written as one.

python benchmarks/predict_stages.py --workdir=runs/quickstart [--shape=300,512,512] [--volume=FILE.nii.gz] [--rounds=2]

Prints a table of the last round, stage by stage, and the sums with and without the review page. In the first round
JAX compiles; with a compilation cache (JAX_COMPILATION_CACHE_DIR) later ones do not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import main as program
from heartseg_jax.imaging.nifti import read_nifti
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import write_series

FIELD_MM = (180.0, 300.0, 300.0)
PAGE = "review_s"


def volume_of(asked: argparse.Namespace) -> Volume:
    """Return the volume that was asked for, patient-axial."""
    if asked.volume:
        return patient_axial(read_nifti(asked.volume))[0]
    shape = tuple(int(part) for part in asked.shape.split(","))
    spacing = tuple(mm / n for mm, n in zip(FIELD_MM, shape, strict=True))
    return generate(0, 0, PhantomSpec(shape, spacing)).volume


def main(argv: list[str]) -> None:
    """Write the study, predict it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--shape", default="300,512,512")
    parser.add_argument("--volume")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args(argv)
    volume = volume_of(asked)
    with tempfile.TemporaryDirectory() as place:
        study = Path(place) / "study"
        hu = np.maximum(volume.voxels, -1024).astype(np.int16)
        write_series(study, hu, volume.spacing_mm, volume.origin_mm, volume.direction)
        for number in range(asked.rounds):
            output = Path(place) / f"out{number}"
            if program.main(["predict", f"--input={study}", f"--workdir={asked.workdir}", f"--output={output}"]):
                raise SystemExit("predict has failed")
        seconds = json.loads((output / "report.json").read_text())["seconds"]
        megabytes = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 1e6
    print(f"\n{' x '.join(map(str, hu.shape))} voxels; outputs of {megabytes:.0f} MB\n\n| stage | s |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name.removesuffix('_s')} | {value:.2f} |")
    total = sum(seconds.values())
    print(f"| all | {total:.2f} |\n| all but the page | {total - seconds.get(PAGE, 0.0):.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
