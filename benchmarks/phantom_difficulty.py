"""How much of a phantom follows from a pixel's intensity and position only? A forest that sees nothing else.

Run: python benchmarks/phantom_difficulty.py   (needs scikit-learn; a minute or two on two cores)

A mean Dice above 0.5 would mean that the phantom is too easy: that a network could score on it without
looking at shapes. Quote this figure beside every phantom score.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heartseg_jax.anatomy import HEART
from heartseg_jax.imaging.phantom.generator import VERSION, Phantom, PhantomSpec, generate


def features(phantom: Phantom) -> np.ndarray:
    """`[voxels, 4]`: HU, and the fraction of the way along z, y and x."""
    shape = phantom.labels.shape
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    return np.stack([phantom.volume.voxels.astype(np.float32), z, y, x], -1).reshape(-1, 4)


def main() -> None:
    """Train on some phantoms, test on others, print Dice by structure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=20)
    parser.add_argument("--test", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.time()
    spec = PhantomSpec((32, 80, 80), (4.5, 3.0, 3.0))
    with ThreadPoolExecutor(2) as pool:
        phantoms = list(pool.map(lambda i: generate(arguments.seed, i, spec), range(arguments.train + arguments.test)))
    rng = np.random.default_rng(0)
    pixels, labels = [], []
    for phantom in phantoms[: arguments.train]:
        known = np.flatnonzero(phantom.labels.reshape(-1) != 255)
        chosen = rng.choice(known, arguments.pixels // arguments.train, replace=False)
        pixels.append(features(phantom)[chosen])
        labels.append(phantom.labels.reshape(-1)[chosen])
    model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=63, learning_rate=0.15, early_stopping=False)
    model.fit(np.concatenate(pixels), np.concatenate(labels))
    dice = np.zeros((arguments.test, len(HEART.foreground)))
    for row, phantom in enumerate(phantoms[arguments.train :]):
        truth = phantom.labels.reshape(-1)
        guess = model.predict(features(phantom))
        known = truth != 255
        for column, structure in enumerate(HEART.foreground):
            a, b = (truth == structure.label) & known, (guess == structure.label) & known
            dice[row, column] = 2 * (a & b).sum() / max(1, a.sum() + b.sum())
    by_name = {s.name: round(float(d), 3) for s, d in zip(HEART.foreground, dice.mean(0), strict=True)}
    print(
        json.dumps(
            {
                "phantom_version": VERSION,
                "seed": arguments.seed,
                "train": arguments.train,
                "test": arguments.test,
                "pixels": arguments.pixels,
                "sklearn": sklearn.__version__,
                "mean_dice": round(float(dice.mean()), 3),
                "dice": by_name,
                "by_patient": [round(float(d), 3) for d in dice.mean(1)],
                "seconds": round(time.time() - began, 1),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
