"""A folder of volumes and label maps, `images/NAME.nii.gz` and `labels/NAME.nii.gz`; either may be NRRD."""

from __future__ import annotations

from functools import partial

from heartseg_jax.data.sources.case import Options, Source
from heartseg_jax.data.sources.listing import GRIDS, pairs_in
from heartseg_jax.data.sources.volumes import read_labelled, volume_cases
from heartseg_jax.imaging.masks.label_maps import read_label_map


def nifti_pairs(options: Options) -> Source:
    """Return the patients of `images/NAME.nii.gz` in HU and `labels/NAME.nii.gz`; NAME is the patient.

    Either may be `.nrrd`, and labels a segmentation of 3D Slicer (`NAME.seg.nrrd`), whose segments have names. By
    default values are the project's own labels. Where a label map is given, structures that it does not name are
    unknown. Several volumes may be one person's, as a table of patients says (its `file` is NAME).

    Volumes become patient-axial (`orientation.patient_axial`). An undivided aorta ("aorta" in the map) is divided where
    its shape allows.

    Raises:
      UserError: for whatever is missing or contradictory, naming files and the fix.
    """
    label_map = None if options.labels is None else read_label_map(options.labels)
    pairs, warnings = pairs_in(options.input, ("images", "labels"), GRIDS)
    read = partial(read_labelled, label_map=label_map, merge=options.merge)
    cases, doubts = volume_cases(pairs, options, read)
    about = {
        "kind": "nifti_pairs",
        "label_map": label_map or {},
        "warnings": warnings + doubts,
    }
    return Source(cases, about)
