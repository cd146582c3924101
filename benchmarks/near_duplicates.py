"""How like are slices of different patients, and how like are copies of one slice? The audit's limits rest on this.

python benchmarks/near_duplicates.py DATASET [DATASET ...]

For each dataset: the highest correlation and the fewest different bits between slices of two patients, then, over about
60 slices and for each kind of copy, the lowest correlation and the most different bits.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from heartseg_jax.data.audit.near_duplicates import brightness, correlation, prints_of
from heartseg_jax.data.dataset.write import read_dataset


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """Return a slice after JPEG of quality 50."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=50)
    return np.asarray(Image.open(stream))


def halved(image: np.ndarray) -> np.ndarray:
    """Return a slice at half its size."""
    return np.asarray(Image.fromarray(image).resize((image.shape[1] // 2, image.shape[0] // 2)))


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG, quality 50": as_jpeg,
    "half the size": halved,
    "another window": lambda image: np.clip((image / 255 - 0.1) / 0.7 * 255, 0, 255).astype(np.uint8),
    "gamma 0.7": lambda image: ((image / 255) ** 0.7 * 255).astype(np.uint8),
}


def main(argv: list[str]) -> None:
    """Print the figures of each dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+")
    for path in parser.parse_args(argv).datasets:
        dataset = read_dataset(path)
        bright = np.concatenate([brightness(dataset.images(p), dataset.intensity) for p in dataset.patients])
        who = np.repeat(np.arange(len(dataset.patients)), [p.num_slices for p in dataset.patients])
        prints = prints_of(bright)
        unit = prints.thumbnails - prints.thumbnails.mean(axis=1, keepdims=True)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        shown = np.flatnonzero(prints.thumbnails.std(axis=1) >= 2)
        apart = who[shown][:, None] != who[shown][None]
        highest = float((unit[shown] @ unit[shown].T)[apart].max())
        bits = int(np.bitwise_count(prints.codes[shown][:, None] ^ prints.codes[shown][None])[apart].min())
        print(f"{path}: {len(bright)} slices; of two patients: correlation up to {highest:.3f}, {bits} bits at least")
        for name, copy in COPIES.items():
            found = []
            for k in shown[:: max(1, len(shown) // 60)]:
                other = copy((bright[k] * 255).astype(np.uint8))
                again = brightness(other[None], "uint8") if dataset.intensity == "uint8" else other[None] / 255
                own = prints_of(again)
                value = correlation(own.thumbnails[0], prints.thumbnails[k])
                found.append((value, int(np.bitwise_count(own.codes[0] ^ prints.codes[k]))))
            least, most = min(value for value, _ in found), max(number for _, number in found)
            print(f"  {name:<18} {len(found)} slices: correlation {least:.3f} at least, {most} bits at most")


if __name__ == "__main__":
    main(sys.argv[1:])
