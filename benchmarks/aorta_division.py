"""How well is an undivided aorta divided? Phantoms know where the middle of their arch is.

python benchmarks/aorta_division.py [--patients=14]

Each phantom on a fine and on a coarse grid: the share of the aorta's voxels that get the half the phantom gives them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heartseg_jax.imaging.masks.aorta import divide_aorta
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate

GRIDS = {"fine": PhantomSpec((90, 110, 110), (2.5, 2.0, 2.0)), "coarse": PhantomSpec((32, 80, 80), (4.5, 3.0, 3.0))}


def main(argv: list[str]) -> None:
    """Print a line a grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=14)
    asked = parser.parse_args(argv)
    for name, spec in GRIDS.items():
        shares, undecided = [], 0
        for number in range(asked.patients):
            labels = generate(3, number, spec).labels
            aorta = (labels == 1) | (labels == 6)
            ascending = divide_aorta(aorta, spec.spacing_mm).ascending
            undecided += ascending is None
            if ascending is not None:
                shares.append(float((ascending == (labels == 1))[aorta].mean()))
        found = f"{100 * min(shares):.1f} to {100 * max(shares):.1f} % of voxels" if shares else "none"
        print(f"{name:<7} {len(shares)} divided, {found}; {undecided} undecided")


if __name__ == "__main__":
    main(sys.argv[1:])
