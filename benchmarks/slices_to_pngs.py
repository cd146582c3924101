"""Write labelled slices of one NumPy file as pictures that `prepare --source=png_pairs` reads.

The file (.npz) has `images [N, H, W]` uint8, `labels [N, H, W]` uint8 (0 to 8, or 255) and `ids [N]`, one patient per
slice. Where a structure is unknown in some slices only, an array `NAME [N]` of truth values says where it is known, and
`--known=NAME` leaves the other slices out: they would teach that the structure is absent.

    python benchmarks/slices_to_pngs.py --input=slices.npz --output=pngs --known=left_known --known=descending_known
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.files import new_folder
from heartseg_jax.imaging.masks.palette import IGNORED_RGB


def main() -> None:
    """Write `images/ID_0.png` and `masks/ID_0.png`, and say how many slices were left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--known", action="append", default=[], help="an array: only slices where it is true")
    asked = parser.parse_args()
    with np.load(asked.input, allow_pickle=False) as file:
        images, labels, ids = file["images"], file["labels"], file["ids"]
        kept = np.flatnonzero(np.all([file[name] for name in asked.known], axis=0) & np.ones(len(ids), bool))
    colours = np.zeros((256, 3), np.uint8)
    for structure in HEART.structures:
        colours[structure.label] = structure.mask_rgb
    colours[IGNORED] = IGNORED_RGB
    with new_folder(asked.output) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for n in kept:
            Image.fromarray(images[n]).save(folder / "images" / f"{ids[n]:04d}_0.png")
            Image.fromarray(colours[labels[n]]).save(folder / "masks" / f"{ids[n]:04d}_0.png")
    print(f"{len(kept)} slices written, {len(ids) - len(kept)} left out")


if __name__ == "__main__":
    main()
