"""DICOM studies with their masks as cases of a dataset. Patients are always called by keys."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from heartseg_jax.data.sources.case import Case, Labelled, Options, Source
from heartseg_jax.data.sources.listing import GRIDS
from heartseg_jax.data.sources.studies import Chosen, choose_all, find_places
from heartseg_jax.data.sources.study_masks import (
    Masks,
    Pictures,
    Reading,
    from_label_file,
    from_pictures,
    from_segmentation,
    from_structure_set,
    pictures_in,
)
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.checks import kind_of
from heartseg_jax.imaging.dicom.series import SeriesCandidate, read_block
from heartseg_jax.imaging.masks.label_maps import read_label_map
from heartseg_jax.imaging.masks.palette import read_palette
from heartseg_jax.imaging.orientation import AxisReorder, oblique, patient_axial
from heartseg_jax.imaging.volume import Volume


def dicom_studies(options: Options) -> Source:
    """Return the cases of `images/NAME` (a study's folder, zip or file) and `masks/NAME...`, or of one study.

    Masks are a folder of colour PNGs, a label file (`NAME.nii.gz`, `NAME.seg.nrrd`), or a segmentation or structure set
    (`NAME.dcm`, a folder with one, or inside of the study). In a table of patients, `file` is NAME.

    Raises:
      UserError: for whatever is missing, unreadable or contradictory, naming the study and the fix.
    """
    chosen, doubts = choose_all(find_places(options.input, options.masks), options)
    how = Reading(
        read_palette(options.colours) if options.colours else None,
        read_label_map(options.labels) if options.labels else None,
        options.repair,
        options.max_off_palette,
    )
    # Of all studies: listed and read once.
    shared = pictures_in(options.masks) if options.masks is not None and chosen[0].place.shared else None
    counts: Counter[str] = Counter()
    cases = []
    for one in chosen:
        counts[one.key] += 1
        # The second study of a person needs an id of its own, and is never parted from the first.
        identity = one.key if counts[one.key] == 1 else f"{one.key}.{counts[one.key]}"
        pictures = shared.of_series(one.series.frames[0].header.series_uid) if shared else None
        read = partial(_read, one, pictures, how, options.merge)
        cases.append(Case(identity, one.key, str(one.place.study), partial(axial_size, one.series), read))
    return Source(cases, {"kind": "dicom", "warnings": doubts})


def axial_size(series: SeriesCandidate) -> tuple[int, int]:
    """Return rows and columns of a series' axial slices, from its headers only."""
    block, first = series.stack, series.frames[0].header
    assert block is not None
    voxels = np.broadcast_to(np.int8(0), (len(block.frames), first.rows, first.columns))
    axial, _ = patient_axial(Volume(voxels, block.spacing_mm, block.origin_mm, block.direction))
    return axial.voxels.shape[1], axial.voxels.shape[2]


def _read(one: Chosen, pictures: Pictures | None, how: Reading, merge: tuple[int, ...] | None) -> Labelled:
    volume, values = read_block(one.series)
    axial, turn = patient_axial(volume)
    masks = _masks(one, pictures, axial, turn, how)
    found = (*one.found, *values, *oblique(turn.oblique_degrees), *masks.found)
    phase = one.series.cardiac_phase
    return Labelled(
        axial.voxels,
        masks.labels,
        masks.merge if merge is None else merge,
        axial.spacing_mm,
        annotated=masks.annotated,
        found=found,
        facts={"cases": {"cardiac_phase": phase}} if phase else {},
    )


def _masks(one: Chosen, pictures: Pictures | None, axial: Volume, turn: AxisReorder, how: Reading) -> Masks:
    place, block = one.place, one.series.stack
    assert block is not None
    if place.masks is not None and place.masks.name.lower().endswith(GRIDS):
        return from_label_file(place.masks, axial, how)
    if len(one.segmentations) > 1:
        raise UserError(
            f"{place.masks or place.study} holds {len(one.segmentations)} segmentations or structure sets of one "
            "series: put the one to use beside the study, as masks/NAME.dcm"
        )
    if one.segmentations:
        header = one.segmentations[0]
        read = from_structure_set if kind_of(header) == "structure_set" else from_segmentation
        return read(header, block, turn, how)
    if place.masks is None:
        raise UserError(
            f"{place.study} has no masks: put colour PNGs, a label file or a segmentation beside it as "
            f"masks/{place.name}..., or give --masks for a single study"
        )
    if pictures is None:
        pictures = pictures_in(place.masks)
    elif not pictures.paths:
        raise UserError(
            f"no picture in {place.masks} is of {place.name} by the export's table (instances.csv): annotate some, "
            f"remove the study, or put each study's masks into a folder of its own"
        )
    return from_pictures(pictures, one.series, one.elsewhere, turn, how)
