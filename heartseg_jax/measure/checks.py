"""What the measurements themselves show to be doubtful: findings, none refuses. Refusals are in `status`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from heartseg_jax.findings import WARN, Finding, counted
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.measure.border import Surfaces
from heartseg_jax.measure.results import StructureMeasurement
from heartseg_jax.measure.status import LOW_AGREEMENT, percent
from heartseg_jax.preprocess.contract import Contract
from heartseg_jax.preprocess.learned import REAL

Box = tuple[slice, slice, slice]

CHAMBERS = ("left_atrium", "left_ventricle", "right_atrium", "right_ventricle")
JOINED = (("left_atrium", "left_ventricle"), ("right_atrium", "right_ventricle"))
"""Their blood pools touch at the valve between them."""
FEWEST = 4
"""Structures in a scan of the heart; a scan of the abdomen shows the aorta and a cava."""
DIM_HU = 90.0
"""No tissue without contrast has more, but bone: below, walls and blood look alike."""
UNEVEN_HU, STREAKED = 200.0, ("vena_cava",)
"""Standard deviation in a blood pool: noise, mixing and rim come to 20 to 120. Undiluted contrast throws streaks."""
LEAST_ML = 2.0
"""Of a vessel; for chambers there are published ranges."""
WHOLE = 0.9
"""Share of a chamber in its largest part."""
MUCH_CHANGED = 0.1
"""Share of a structure that postprocessing removed or added."""
MOST_VOXELS = 500_000
"""Of a box whose parts are counted; larger ones are thinned evenly."""


def of_model(contract: Contract) -> list[Finding]:
    """Return what the model never saw in training; nothing where the contract does not say."""
    found, taught = [], contract.taught
    names = contract.label_set.names
    joined = {names[label]: names[into] for label, into in enumerate(contract.merge[: len(names)]) if into != label}
    never = [name for name, kinds in (taught or {}).items() if not kinds]
    if joined:
        text = f"the model was never taught to tell {_each(f'{one} from {into}' for one, into in joined.items())}"
        found.append(Finding(WARN, "joined", text, fix="what it finds of the one counts as the other"))
    never = [name for name in never if name not in joined]
    if never:
        text = f"the model was never taught {_each(never)}: no patient that it was trained on has them labelled"
        found.append(Finding(WARN, "untaught", text, fix="do not use what it says of them"))
    drawn = [name for name, kinds in (taught or {}).items() if kinds and REAL not in kinds]
    if drawn:
        every = "every structure" if len(drawn) == len(taught or {}) else _each(drawn)
        text = f"the model was taught {every} by synthesised images only, never by a real scan"
        found.append(Finding(WARN, "synthesised_only", text, fix="look at the labels before you use them"))
    return found


def of_any(rows: Sequence[StructureMeasurement]) -> list[Finding]:
    """Return what is doubtful in structures of any kind."""
    found = []
    low = [row for row in rows if row.agreement is not None and row.agreement < LOW_AGREEMENT]
    if low:
        who = "the models, or the views of one model,"
        text = f"{who} agree little on {_each(f'{r.name} ({r.agreement:.2f})' for r in low)}"
        found.append(Finding(WARN, "low_agreement", text, fix="look at its borders before you use it"))
    changed = [row for row in rows if row.removed_voxels + row.added_voxels > MUCH_CHANGED * max(row.voxels, 1)]
    if changed:
        texts = (f"{row.name} ({row.removed_voxels} voxels removed, {row.added_voxels} added)" for row in changed)
        text = f"postprocessing changed much of {_each(texts)}"
        found.append(Finding(WARN, "much_changed", text, fix="compare it with the labels without postprocessing"))
    return found


def of_heart(
    labels: np.ndarray,
    volume: Volume,
    boxes: Sequence[Box | None],
    surfaces: Surfaces,
    rows: Sequence[StructureMeasurement],
) -> list[Finding]:
    """Return what is doubtful in the anatomy of a heart; rows and boxes are by label, from 1.

    Of structures that are withheld the reason says enough.
    """
    there = [row.name for row in rows if row.voxels]
    present = {row.name: row for row in rows if row.voxels and not row.withheld}
    found = []
    if len(there) < FEWEST:
        text = f"only {len(there)} of {counted(len(rows), 'structure')} found: {_each(there) or 'none'}"
        cause = "another part of the body than the heart, or a model that fails on this scan"
        found.append(Finding(WARN, "few_structures", text, cause=cause, fix="look at the labels"))
    dim = [row for row in present.values() if row.mean_hu is not None and row.mean_hu < DIM_HU]
    if dim:
        text = f"as dark as blood without contrast: {_each(f'{row.name} ({row.mean_hu:.0f} HU)' for row in dim)}"
        found.append(Finding(WARN, "dim_blood", text, fix="its borders cannot be seen well: check them"))
    uneven = [row for name, row in present.items() if name not in STREAKED and (row.sd_hu or 0) > UNEVEN_HU]
    if uneven:
        text = f"more uneven than blood: {_each(f'{row.name} (sd {row.sd_hu:.0f} HU)' for row in uneven)}"
        cause = "bone, lung or metal in it"
        found.append(Finding(WARN, "uneven", text, cause=cause, fix="look at its borders"))
    odd = [row for row in present.values() if row.within_normal_range is False]
    if odd:
        text = f"outside of what is published for healthy adults: {_each(map(_beside_range, odd))}"
        fix = "an enlarged or a child's heart, or wrong labels: look at them"
        found.append(Finding(WARN, "unusual_volume", text, fix=fix))
    specks = [row for row in present.values() if not row.normal_range_ml and (row.volume_ml or LEAST_ML) < LEAST_ML]
    if specks:
        text = f"hardly any was found of {_each(f'{row.name} ({row.volume_ml:.1f} mL)' for row in specks)}"
        found.append(Finding(WARN, "hardly_any", text, fix="look at the labels: is it there?"))
    parts = {name: _largest_part(labels, present[name].label, boxes) for name in CHAMBERS if name in present}
    scattered = [
        f"{name} ({percent(1 - share)} outside of its largest part)" for name, share in parts.items() if share < WHOLE
    ]
    if scattered:
        found.append(Finding(WARN, "scattered", f"in several parts: {_each(scattered)}", fix="look at the labels"))
    apart = [
        f"{one} and {other}"
        for one, other in JOINED
        if one in present and other in present and not surfaces.shared[present[one].label, present[other].label]
    ]
    if apart:
        found.append(Finding(WARN, "apart", f"chambers that do not touch: {_each(apart)}", fix="look at the labels"))
    if {"right_atrium", "left_ventricle"} <= set(present) and (
        _leftward_mm(volume, boxes[present["right_atrium"].label - 1])
        > _leftward_mm(volume, boxes[present["left_ventricle"].label - 1])
    ):
        text = "the right atrium lies to the left of the left ventricle"
        fix = "check that the volume's left is the patient's"
        found.append(Finding(WARN, "mirrored", text, cause="a mirrored volume, or a heart on the right", fix=fix))
    return found


def _each(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _beside_range(row: StructureMeasurement) -> str:
    assert row.normal_range_ml is not None
    low, high = row.normal_range_ml
    return f"{row.name} {row.volume_ml:.0f} mL ({low:.0f} to {high:.0f} mL)"


def _largest_part(labels: np.ndarray, label: int, boxes: Sequence[Box | None]) -> float:
    """Return the share of a structure's voxels in its largest connected part, by faces, edges and corners."""
    box = boxes[label - 1]
    assert box is not None
    size = np.prod([side.stop - side.start for side in box])
    step = max(1, int(np.ceil((size / MOST_VOXELS) ** (1 / 3))))
    mask = labels[box][::step, ::step, ::step] == label
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    counts = np.bincount(parts.ravel())[1:]
    return float(counts.max() / counts.sum()) if len(counts) else 1.0


def _leftward_mm(volume: Volume, box: Box | None) -> float:
    """Return how far to the patient's left the middle of a box lies, from the first voxel."""
    assert box is not None
    assert volume.direction is not None
    middle = np.array([(side.start + side.stop - 1) / 2 for side in box]) * volume.spacing_mm
    return float(volume.direction[0] @ middle)
