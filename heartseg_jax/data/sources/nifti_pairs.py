"""A folder of NIfTI volumes and label maps, `images/NAME.nii.gz` and `labels/NAME.nii.gz`."""

from __future__ import annotations

from functools import partial

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.sources.case import Options, Source
from heartseg_jax.data.sources.grouping import alike_names, volume_doubts
from heartseg_jax.data.sources.listing import VOLUMES, by_stem, list_files, natural_key, not_read
from heartseg_jax.data.sources.patient_table import patients_of
from heartseg_jax.data.sources.volumes import VolumePair, read_pair
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import OWN, by_number, merge_for, read_label_map


def nifti_pairs(options: Options) -> Source:
    """Return the patients of `images/NAME.nii.gz` in HU and `labels/NAME.nii.gz`; NAME is the patient.

    By default values are the project's own labels. Where a label map is given, structures that it does not name are
    unknown. Several volumes may be one person's, as a table of patients says (its `file` is NAME).

    Volumes become patient-axial (`orientation.patient_axial`). An undivided aorta ("aorta" in the map) is divided where
    its shape allows.

    Raises:
      UserError: for whatever is missing or contradictory, naming files and the fix.
    """
    meanings = OWN if options.labels is None else by_number(read_label_map(options.labels), options.labels)
    merge = options.merge or (HEART.all_known if options.labels is None else merge_for(set(meanings.values())))
    pairs, warnings = find_pairs(options)
    naming = options.naming
    called = naming.called([pair.name for pair in pairs])
    persons = called
    if options.patients is not None:
        table = patients_of([pair.name for pair in pairs], options.patients)
        keys = naming.called(list(dict.fromkeys(table.values())))
        persons = {name: keys[person] for name, person in table.items()}
        warnings += alike_names(keys)
    else:
        warnings += alike_names(called) + volume_doubts(called)
    about = {
        "kind": "nifti_pairs",
        "label_map": {str(value): label for value, label in meanings.items()} if options.labels else {},
        "warnings": warnings,
    }
    return Source(
        [pair.case(called[pair.name], persons[pair.name], partial(read_pair, pair, meanings, merge)) for pair in pairs],
        about,
    )


def find_pairs(options: Options) -> tuple[list[VolumePair], list[str]]:
    """Return the pairs in natural order of their names, and warnings of what lies there and is not read.

    Raises:
      UserError: a folder is missing, an image without labels or labels without an image.
    """
    folder = options.input
    for kind in ("images", "labels"):
        if not (folder / kind).is_dir():
            raise UserError(f"no folder {folder / kind}: the input of nifti_pairs holds `images` and `labels`")
    listed = [list_files(folder / kind, VOLUMES) for kind in ("images", "labels")]
    images, labels = (by_stem(one) for one in listed)
    for name in [*images, *labels]:
        if name not in images or name not in labels:
            lacking = "labels" if name in images else "images"
            text = f"no {folder / lacking / name}.nii.gz beside its mate: add it, or remove the other"
            raise UserError("; ".join([text, *not_read(*listed)]))
    if not images:
        raise UserError("; ".join([f"{folder / 'images'} holds no .nii or .nii.gz file", *not_read(*listed)]))
    pairs = [VolumePair(name, images[name], labels[name]) for name in sorted(images, key=natural_key)]
    return pairs, not_read(*listed)
