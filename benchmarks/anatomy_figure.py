"""Draw tissue maps, the images that training makes from them, and real slices, as docs/data.md shows them.

It reads the dataset (--maps), a folder of real 8-bit slices (--real), and writes one picture (--output).
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.preprocess.synthesis import synthesise

GREYS = np.array([0, 22, 75, 112, 240, 170, 130, 130, 118, 0, *[190] * 14], np.uint8)
"""One grey for each tissue: blood as it looks in contrast CT."""
SIDE, EACH = 120, 8
FLOWS = ((0.0, 0.0), (1.0, 1.0))
"""How likely unmixed contrast medium and a dissection are, by row of images."""


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, required=True, help="a dataset of tissue maps")
    parser.add_argument("--real", type=Path, required=True, help="a folder of 8-bit slices")
    parser.add_argument("--output", type=Path, required=True, help="the picture")
    given = parser.parse_args()
    dataset = read_dataset(given.maps)
    chosen = [k * len(dataset.patients) // EACH for k in range(EACH)]
    # The level rises from left to right.
    maps = np.stack([dataset.images(p)[1 + k * (len(dataset.images(p)) - 2) // EACH] for k, p in enumerate(chosen)])
    made = [(np.asarray(synthesise(jax.random.key(3), maps, *flow)) * 255).astype(np.uint8) for flow in FLOWS]
    rows = [np.hstack([_small(Image.fromarray(one)) for one in part]) for part in (GREYS[maps], *made)]
    files = sorted(given.real.glob("*.png"))
    real = [Image.open(files[k * len(files) // EACH]).convert("L") for k in range(EACH)]
    gap = np.full((4, SIDE * EACH), 255, np.uint8)
    Image.fromarray(np.vstack([*rows, gap, np.hstack([_small(one) for one in real])])).save(given.output, optimize=True)


def _small(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
