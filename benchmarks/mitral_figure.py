"""Draw the mitral annulus on real label maps, as docs/mitral.md shows it: planes through its axis.

A row per map of the data folder (--data) that --names names; crosses are where the annulus passes through the plane.
"""

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mitral_accuracy import MAPS, heart
from heartseg_jax.anatomy import HEART
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.measure.contact import indices_of
from heartseg_jax.measure.rim import frame_of
from heartseg_jax.measure.valves import valves_of_labels

HALF_MM, PLANES = 30.0, 6


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of label maps")
    parser.add_argument("--names", required=True, help="maps, such as wh,toronto_2018016")
    parser.add_argument("--output", type=Path, required=True, help="the picture")
    given = parser.parse_args()
    names = given.names.split(",")
    figure, rows = plt.subplots(len(names), PLANES, figsize=(2 * PLANES, 1.75 * len(names)), squeeze=False)
    paths = {path.name.removesuffix(".nii.gz"): (path, meaning) for p, meaning in MAPS for path in given.data.glob(p)}
    for row, name in zip(rows, names, strict=True):
        path, meaning = paths[name]
        draw(row, heart(read_labels(path), meaning), name)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.95, 0.03, 0.12)
    figure.savefig(given.output, dpi=65)


def draw(row, volume, name: str) -> None:
    """Draw a map's valve into a row of axes, also an unstable one; the first plane runs through the aortic root."""
    said, found = (
        valves_of_labels(volume, volume.voxels, barred={"tricuspid": "not asked for"}, repeated=repeated).mitral
        for repeated in (True, False)
    )
    axes = frame_of(found.normal, found.septal)
    colours = np.array([(0, 0, 0), *(s.display_rgb for s in HEART.foreground)]) / 255
    steps = np.arange(-HALF_MM, HALF_MM, 0.4)
    local = (found.curve_mm - found.centre_mm) @ axes.T
    for k, place in enumerate(row):
        angle = np.pi * k / PLANES
        out = np.cos(angle) * axes[0] + np.sin(angle) * axes[1]
        places = found.centre_mm + steps[None, :, None] * out + steps[:, None, None] * axes[2]
        labels = ndimage.map_coordinates(volume.voxels, np.moveaxis(indices_of(volume, places), -1, 0), order=0)
        place.imshow(colours[labels], extent=(-HALF_MM, HALF_MM, HALF_MM, -HALF_MM), interpolation="nearest")
        across = -np.sin(angle) * local[:, 0] + np.cos(angle) * local[:, 1]
        through = np.flatnonzero(np.sign(across) != np.sign(np.roll(across, -1)))
        along = np.cos(angle) * local[through, 0] + np.sin(angle) * local[through, 1]
        place.plot(along, local[through, 2], "+", color="white", ms=9, mew=2)
        place.axhline(0, color="white", lw=0.5)
        place.set_axis_off()
    row[0].set_title(f"{name}: {said.status}", fontsize=8, loc="left")


if __name__ == "__main__":
    main()
