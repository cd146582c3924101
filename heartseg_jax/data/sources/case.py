"""What a format is given (`Options`) and what it yields (`Source`: cases that are read one by one). No format here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heartseg_jax.anatomy import HEART, LabelSet
from heartseg_jax.data.sources.naming import Naming
from heartseg_jax.findings import Finding


@dataclass(frozen=True)
class Options:
    """What the user asked for: a field per flag of `prepare`, typed. Each format reads those the registry lists for it.

    Attributes:
      input: the folder, zip or study to read.
      masks: of one study, or the folder of pictures that `export_png` made of all studies, painted on.
      series: which series of a study to read, see `dicom.series.choose`, or 'best'.
      colours: JSON of mask colours, see `palette.read_palette`; it replaces the standard palette.
      labels: JSON of label values or segment names, see `label_maps.read_label_map`.
      repair: repair masks damaged by JPEG or antialiasing.
      max_off_palette: without `repair`, the share of a mask's foreground that may have colours without a meaning.
      patients: CSV file,patient: which patient each file, volume or study is of.
      merge: see `LabelSet.check_merge`; by default structures that the source's own names leave out are unknown.
      orientation: a name of `png_pairs.ORIENTATIONS`.
      join: more folders of the same subjects.
      block: slices per block where blocks replace patients: by default more than a patient has, so that a block left
        out at a border separates the patients on its sides.
      splits: shares of persons (train, validation, test), or numbers of them.
      seed: of the split.
      phantom: a config's `data.phantom`.
      count: patients to make (anatomy).
      slices: of each of them.
      size: rows and columns of a slice.
      naming: what patients are called in the dataset; records who is who.
    """

    input: Path = Path()
    masks: Path | None = None
    series: str = ""
    colours: Path | None = None
    labels: Path | None = None
    repair: bool = False
    max_off_palette: float = 0.0
    patients: Path | None = None
    merge: tuple[int, ...] | None = None
    orientation: str = "standard"
    join: tuple[Path, ...] = ()
    block: int = 64
    splits: Sequence[float] = (0.7, 0.15, 0.15)
    seed: int = 0
    phantom: Any = None
    count: int = 160
    slices: int = 12
    size: int = 256
    naming: Naming = field(default_factory=Naming)


class Labelled(NamedTuple):
    """A case that was read.

    Attributes:
      images: `[Z, H, W]`, HU in int16 (patient-axial), uint8 or tissue codes, as the source's `intensity` says.
      labels: uint8 of the same shape: 0 to 8, 255, or parts such as `label_maps.AORTA`, resolved when written.
      merge: see `LabelSet.check_merge`.
      spacing_mm: (z, y, x), or None where the slices are no volume.
      names: one per slice; by default the case's identity and the slice's number.
      annotated: bool `[Z]`: slices whose labels are known; None for all.
      found: what was seen while it was read.
      facts: {section: value}, kept as `source[section][identity]` of the dataset; nothing that names a patient.
    """

    images: np.ndarray
    labels: np.ndarray
    merge: tuple[int, ...]
    spacing_mm: tuple[float, float, float] | None = None
    names: Sequence[str] = ()
    annotated: np.ndarray | None = None
    found: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = {}


class Case(NamedTuple):
    """A patient, or one volume of a person, to be read.

    Attributes:
      identity: its id in the dataset.
      person: the same for all cases of one person: they are always in one split.
      where: names the input in messages to the user; nothing of it is kept.
      size: returns rows and columns of the slices, or None where nothing is labelled: the case is left out.
      read: returns the case; raises UserError.
    """

    identity: str
    person: str
    where: str
    size: Callable[[], tuple[int, int] | None]
    read: Callable[[], Labelled]


class Source(NamedTuple):
    """Everything that becomes one dataset.

    Attributes:
      cases: in the order of the dataset.
      about: what the dataset keeps about where it comes from; `kind`, and `warnings` if there are any.
      intensity: "HU", "uint8" or "tissue".
      labels: what the labels mean.
      splits: {person: split} where the source decides; by default drawn by seed and shares.
      unit: what a case is, for the progress bar.
      workers: how many cases may be read at the same time.
      leave_out_refused: a refused volume is left out and counted (collections of hundreds), instead of ending the work.
    """

    cases: Sequence[Case]
    about: dict[str, Any]
    intensity: str = "HU"
    labels: LabelSet = HEART
    splits: Mapping[str, str] | None = None
    unit: str = "patients"
    workers: int = 1
    leave_out_refused: bool = False
