"""How well the mitral annulus is measured: on phantoms, whose annulus is known, and on real label maps.

`phantoms` measures phantom patients (version 1) on grids of --spacing, `annuli` the D-shaped and saddle-shaped annuli
(version 2): errors against the truth. `predicted` does so with the labels that --model (a run's folder, a package's, or
heart_v1) predicts of phantom patients. `maps` measures every label map with both left chambers in a data folder, and
how much that changes with the contact's tolerance, a grid rotated by 20 degrees, and voxels of 1.25 mm. `cost` says
how many seconds of CPU time both valves of the first --count of these maps take, without and with repeats on other
grids. Each prints a table.
"""

import argparse
import dataclasses
import itertools
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heartseg_jax.imaging.intake import of_volume
from heartseg_jax.imaging.nifti import read_labels
from heartseg_jax.imaging.phantom.annulus import draw_annulus, draw_pose, make_annulus
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.inference.postprocess import postprocess, settings_of
from heartseg_jax.inference.study import predict_volume
from heartseg_jax.interop.package import SHIPPED
from heartseg_jax.measure.annulus import planes, quantities
from heartseg_jax.measure.contact import TOLERANCE_MM, indices_of, places_of
from heartseg_jax.measure.results import REFUSED
from heartseg_jax.measure.valves import valves_of_labels
from heartseg_jax.measure.volumes import measure
from heartseg_jax.verbs.models import load_models

BLOCK_MM, FIELD_MM = (150.0, 140.0, 150.0), (150.0, 240.0, 240.0)
"""The former holds every patient's left ventricle, the latter the width that the quickstart's patients have too."""
SEED = 7
TITLES = (
    "centre, mm",
    "normal, degrees",
    "area, %",
    "perimeter, %",
    "intercommissural, mm",
    "septolateral, mm",
    "height, mm",
)
COLUMNS = (
    "map",
    "status",
    "area cm²",
    "intercommissural mm",
    "septolateral mm",
    "height mm",
    "centre moves mm",
    "diameters change mm",
    "area changes %",
    "tricuspid cm²",
    "septal offset mm",
)
NAMES = ("intercommissural_mm", "septolateral_mm")
EIGHT = {k: k for k in range(1, 9)}
OWN = {1: 3, 2: 5, 3: 2, 4: 4, 5: 1, 6: 7}
MAPS = (
    ("whole_heart_labels/wh.nii.gz", {2: 2, 3: 3, 4: 4, 5: 5, 6: 1, 7: 7}),
    ("anatomy/trunk/s0327_8class.nii.gz", EIGHT),
    ("anatomy/toronto/labelmaps/*.nii.gz", OWN),
    ("anatomy/kcl/labelmaps/*.nii.gz", OWN),
)
"""Label maps of the data folder, and which of our labels theirs are."""


def main() -> None:
    """Print the table of a mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("phantoms", "annuli", "predicted", "maps", "cost"))
    parser.add_argument("--count", type=int, default=30, help="patients or annuli")
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.0, 1.0, 1.0), help="z, y, x in mm")
    parser.add_argument("--model", type=Path, help="what predicts")
    parser.add_argument("--data", type=Path, help="the folder of label maps")
    given = parser.parse_args()
    if given.mode == "maps":
        measure_maps(given.data)
        return
    if given.mode == "cost":
        measure_cost(given.data, given.count)
        return
    spacing_mm = tuple(given.spacing)
    if given.mode == "predicted":
        measure_cases(predicted(given.count, spacing_mm, SHIPPED.get(str(given.model), given.model)))
        return
    measure_cases((phantom if given.mode == "phantoms" else annulus)(given.count, spacing_mm))


def patients(count: int, spacing_mm: tuple[float, float, float], block_mm: tuple[float, float, float]):
    """Yield phantom patients."""
    shape = tuple(round(mm / step) for mm, step in zip(block_mm, spacing_mm, strict=True))
    for index in range(count):
        yield generate(SEED, index, PhantomSpec(shape, spacing_mm))


def phantom(count: int, spacing_mm: tuple[float, float, float]):
    """Yield what is measured of the true labels of phantom patients, their true curves and normals."""
    for made in patients(count, spacing_mm, BLOCK_MM):
        found = valves_of_labels(made.volume, np.where(made.labels == 255, 0, made.labels)).mitral
        yield found, _dense(made.annulus.rim_mm), made.annulus.normal


def predicted(count: int, spacing_mm: tuple[float, float, float], model: Path):
    """Yield the same of the labels that a model predicts, as `predict` measures them."""
    predictor, contract, config = load_models([model])
    settings = settings_of(config, contract.label_set)
    for made in patients(count, spacing_mm, FIELD_MM):
        prediction = predict_volume(predictor, of_volume(made.volume), contract)
        found = measure(postprocess(prediction, settings) if settings else prediction).mitral
        yield found, _dense(made.annulus.rim_mm), made.annulus.normal


def annulus(count: int, spacing_mm: tuple[float, float, float]):
    """Yield the same of the labels of annuli."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        made = make_annulus(draw_annulus(rng), draw_pose(rng), spacing_mm)
        yield valves_of_labels(made.volume, made.volume.voxels).mitral, made.curve_mm, made.flow


def measure_cases(cases) -> None:
    """Print errors against the truth: median and worst, of those called measured and of the others."""
    rows, statuses = {}, []
    for found, curve, normal in cases:
        statuses.append(found.status)
        if found.reason:
            print(f"{len(statuses)} {found.status}: {found.reason}", file=sys.stderr, flush=True)
        if found.status == REFUSED:
            continue
        centres, normals = planes(curve[None], np.array(normal))
        towards = None if found.septal is None else centres[0] + 40 * found.septal
        true = {name: value[0] for name, value in quantities(curve[None], normals[0], towards, None).items()}
        own = {name: quantity.value for name, quantity in found.quantities.items()}
        rows.setdefault(found.status, []).append(
            [
                np.linalg.norm(found.centre_mm - centres[0]),
                np.degrees(np.arccos(min(1.0, float(found.normal @ normals[0])))),
                100 * (own["area_cm2"] / true["area_cm2"] - 1),
                100 * (own["perimeter_mm"] / true["perimeter_mm"] - 1),
                *(own[name] - true[name] for name in (*NAMES, "height_mm")),
            ]
        )
    print(f"{len(statuses)} patients: " + ", ".join(f"{statuses.count(s)} {s}" for s in sorted(set(statuses))))
    if not rows:
        return
    groups = {"all": list(itertools.chain(*rows.values())), **(rows if len(rows) > 1 else {})}
    for name, errors in groups.items():
        print(f"\n| error of ({name}, {len(errors)}) | median | median of its size | largest |")
        print("|---|---|---|---|")
        for title, values in zip(TITLES, np.array(errors).T, strict=True):
            worst = values[np.abs(values).argmax()]
            print(f"| {title} | {np.median(values):+.2f} | {np.median(np.abs(values)):.2f} | {worst:+.2f} |")


def measure_maps(folder: Path) -> None:
    """Print each map's measurements, and the largest change by tolerance, rotation and resampling."""
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for name, volume in maps_of(folder):
        print(_row(name, volume), flush=True)


def measure_cost(folder: Path, count: int) -> None:
    """Print the CPU time of both valves of maps, without and with repeats: the least of three times."""
    print("| map | voxels, mm | without, s | with repeats, s |")
    print("|---|---|---|---|")
    for name, volume in itertools.islice(maps_of(folder), count):
        took = []
        for repeated in (False, True):
            spent = []
            for _ in range(3):
                start = time.process_time()
                valves_of_labels(volume, volume.voxels, repeated=repeated)
                spent.append(time.process_time() - start)
            took.append(min(spent))
        sides = " x ".join(f"{mm:.2g}" for mm in volume.spacing_mm)
        print(f"| {name} | {sides} | {took[0]:.2f} | {took[1]:.2f} |", flush=True)


def maps_of(folder: Path):
    """Yield the name of each label map with both left chambers, and the map."""
    for pattern, meaning in MAPS:
        for path in sorted(folder.glob(pattern)):
            volume = heart(read_labels(path), meaning)
            if volume is not None:
                yield path.name.removesuffix(".nii.gz"), volume


def _row(name: str, volume: Volume) -> str:
    both = valves_of_labels(volume, volume.voxels)
    found = both.mitral
    if found.status == REFUSED:
        return f"| {name} | refused: {found.reason} |" + " |" * 9
    own = {key: quantity.value for key, quantity in found.quantities.items()}
    others = [(volume, tolerance) for tolerance in (0.6, 1.5)]
    others += [(rotated(volume, 20.0), TOLERANCE_MM), (rotated(volume, 0.0, 1.25), TOLERANCE_MM)]
    moved, across, area, refused = 0.0, 0.0, 0.0, 0
    keys = [key for key in own if key.endswith("_mm") and key not in ("perimeter_mm", "height_mm")]
    for grid, tolerance in others:
        other = valves_of_labels(
            grid, grid.voxels, barred={"tricuspid": "not asked for"}, tolerance_mm=tolerance, repeated=False
        ).mitral
        if other.status == REFUSED:
            refused += 1
            continue
        moved = max(moved, float(np.linalg.norm(other.centre_mm - found.centre_mm)))
        across = max([across, *(abs(other.quantities[key].value - own[key]) for key in keys)])
        area = max(area, 100 * abs(other.quantities["area_cm2"].value / own["area_cm2"] - 1))
    sizes = " | ".join(f"{own[key]:.1f}" for key in ("area_cm2", *keys, "height_mm"))
    right = both.tricuspid.quantities.get("area_cm2") if both.tricuspid else None
    offset = both.septal_offset_mm
    status = (
        f"{found.status}{f': {found.reason}' if found.reason else ''}{f' ({refused} of 4 refused)' if refused else ''}"
    )
    return (
        f"| {name} | {status} | {sizes} | {moved:.1f} | {across:.1f} | {area:.0f} | "
        f"{f'{right.value:.1f}' if right else 'refused'} | {f'{offset.value:.1f}' if offset else ''} |"
    )


def heart(volume: Volume, meaning: dict[int, int]) -> Volume | None:
    """Return a map in our labels, cut to the heart with a margin; None without both left chambers."""
    table = np.zeros(max(int(volume.voxels.max()), *meaning) + 1, np.uint8)
    for theirs, ours in meaning.items():
        table[theirs] = ours
    labels = table[volume.voxels.astype(int)]
    if not ((labels == 2).any() and (labels == 3).any()):
        return None
    places = np.argwhere((labels >= 1) & (labels <= 5))
    low = np.maximum(places.min(axis=0) - 4, 0)
    high = np.minimum(places.max(axis=0) + 5, labels.shape)
    origin = places_of(volume, low[None])[0]
    part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return dataclasses.replace(volume, voxels=part, origin_mm=tuple(map(float, origin)))


def rotated(volume: Volume, degrees: float, spacing_mm: float | None = None) -> Volume:
    """Return the labels on a grid rotated about its middle, or of other voxels: each voxel takes the nearest label."""
    axis, angle = np.array([0.48, 0.6, 0.64]), np.radians(degrees)
    cross = np.cross(np.eye(3), axis)
    turn = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) * np.outer(axis, axis) - np.sin(angle) * cross
    steps = np.array(volume.spacing_mm) if spacing_mm is None else np.full(3, spacing_mm)
    size = np.array(volume.voxels.shape) * volume.spacing_mm
    counts = np.ceil(size * (1.15 if degrees else 1.0) / steps).astype(int)
    direction = turn @ volume.direction
    middle = places_of(volume, (np.array(volume.voxels.shape) - 1)[None] / 2)[0]
    origin = middle - direction @ ((counts - 1) / 2 * steps)
    grid = Volume(np.zeros((1, 1, 1), np.uint8), tuple(map(float, steps)), tuple(map(float, origin)), direction)
    slices = []
    rest = np.stack(np.meshgrid(np.arange(counts[1]), np.arange(counts[2]), indexing="ij"), axis=-1).reshape(-1, 2)
    for k in range(counts[0]):
        index = np.concatenate([np.full((len(rest), 1), k), rest], axis=1)
        there = indices_of(volume, places_of(grid, index)).T
        slices.append(ndimage.map_coordinates(volume.voxels, there, order=0, mode="constant").reshape(counts[1:]))
    return dataclasses.replace(grid, voxels=np.stack(slices))


def _dense(rim: np.ndarray) -> np.ndarray:
    """Return the smooth closed curve through points `[N, 3]` at equal angles: their trigonometric interpolation."""
    count = len(rim)
    spectrum = np.fft.rfft(rim, axis=0)
    spectrum[count // 2] /= 2
    padded = np.zeros((15 * count + 1, 3), complex)
    padded[: len(spectrum)] = spectrum
    return np.fft.irfft(padded, 30 * count, axis=0) * 30


if __name__ == "__main__":
    main()
