"""MM-WHS: `NAME_image.nii.gz` with `NAME_label.nii.gz`."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from heartseg_jax.data.sources.case import Labelled, Options, Source
from heartseg_jax.data.sources.grouping import alike_names
from heartseg_jax.data.sources.listing import VOLUMES, FilePair, list_files, natural_key, not_read
from heartseg_jax.data.sources.volumes import read_by_value, volume_case
from heartseg_jax.errors import UserError
from heartseg_jax.findings import counted
from heartseg_jax.imaging.masks.label_maps import AORTA, DESCENDING, LEFT_VENTRICLE, merge_for, resolve_parts

VALUES = {0: 0, 205: 0, 420: 2, 421: 2, 500: 3, 550: 4, 600: 5, 820: AORTA, 850: 7}
"""What the values of MM-WHS mean; 205 is myocardium, and 421 a slip for 420 in one of the patients."""
MERGE = (*merge_for({2, 3, 4, 5, 7, AORTA})[:8], 4)
"""The right atrium of MM-WHS includes the venae cavae."""
AT_THE_VALVE_MM = 4.0


def mmwhs(options: Options) -> Source:
    """Return the patients of MM-WHS: `NAME_image.nii.gz` with `NAME_label.nii.gz`, at any depth of the input.

    Magnetic resonance (`mr_...`) and images without labels are left out, and counted. The right atrium includes the
    venae cavae (`merge` 8 -> 4). The aorta is divided where both limbs are labelled; one limb that rises from the left
    ventricle is the ascending one, and the descending aorta is then not labelled at all (6 -> 0).

    Raises:
      UserError: there is none.
    """
    folder = options.input
    listed = list_files(folder, VOLUMES, deep=True)
    stems = {path: path.name.lower().rpartition(".nii")[0] for path in listed.files}
    listed.others["NIfTI files of other names"] += sum(not s.endswith(("_image", "_label")) for s in stems.values())
    images = sorted((p for p in stems if stems[p].endswith("_image")), key=lambda path: natural_key(path.name))
    if not images:
        raise UserError(f"{folder} holds no NAME_image.nii.gz: give the folder of MM-WHS")
    mr = [path for path in images if path.name.lower().startswith("mr_")]
    labels = {(path.parent, s.removesuffix("_label")): path for path, s in stems.items() if s.endswith("_label")}
    pairs: dict[str, FilePair] = {}
    for path in images:
        own = labels.get((path.parent, stems[path].removesuffix("_image")))
        if path not in mr and own is not None:
            first = pairs.setdefault(path.name[: len(stems[path]) - len("_image")], FilePair(path, own)).image
            if first != path:
                raise UserError(f"{first} and {path} have the same name: remove one")
    if not pairs:
        raise UserError(f"none of the {len(images)} images of {folder} is CT with a NAME_label.nii.gz beside it")
    called = options.naming.called(list(pairs))
    left_out = len(images) - len(mr) - len(pairs)
    warnings = [f"{counted(len(mr), 'image')} of magnetic resonance left out"] if mr else []
    warnings += [f"{counted(left_out, 'image')} without labels left out"] if left_out else []
    warnings += not_read(listed) + alike_names(called)
    cases = [volume_case(called[name], called[name], pair, partial(_read, pair)) for name, pair in pairs.items()]
    return Source(cases, {"kind": "mmwhs", "warnings": warnings})


def _read(pair: FilePair) -> Labelled:
    one = read_by_value(pair, VALUES, MERGE)
    whole = resolve_parts(one.labels, one.spacing_mm, one.merge)
    merge, aorta = whole.merge, whole.aorta
    assert one.spacing_mm is not None
    if whole.limbs == 1 and _near(one.labels == AORTA, one.labels == LEFT_VENTRICLE, one.spacing_mm):
        aorta = "one limb, from the left ventricle: the ascending aorta; the descending one is not labelled"
        merge = (*merge[:DESCENDING], 0, *merge[DESCENDING + 1 :])
    return one._replace(labels=whole.labels, merge=merge, facts={"cases": {"aorta": aorta}} if aorta else {})


def _near(one: np.ndarray, other: np.ndarray, spacing_mm: tuple[float, float, float]) -> bool:
    """Return whether two structures come closer than a valve is thick."""
    if not one.any() or not other.any():
        return False
    box = ndimage.find_objects((one | other).view(np.uint8))[0]
    away_mm = ndimage.distance_transform_edt(~other[box], sampling=spacing_mm)
    return bool(away_mm[one[box]].min() <= AT_THE_VALVE_MM)
