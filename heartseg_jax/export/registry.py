"""The files that a prediction becomes. To add one: a file with its write function, a line here, and its docs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from heartseg_jax.imaging.intake import KINDS

if TYPE_CHECKING:
    from heartseg_jax.imaging.intake import Intake
    from heartseg_jax.inference.study import Prediction
    from heartseg_jax.measure.results import Measurements


class Options(NamedTuple):
    """What the user may choose.

    Attributes:
      labelmap: write DICOM SEG as LABELMAP instead of BINARY.
      language: of the review page at first: 'en' or 'es'.
    """

    labelmap: bool = False
    language: str = "en"


class Exporter(NamedTuple):
    """One kind of output.

    Attributes:
      writes: the files or folders it leaves.
      kinds: of which inputs (`Intake.kind`) it can be made.
      needs_spacing: whether it is only made where the spacing is known.
      writer: 'module.function' in this folder: of the prediction, its measurements, the folder to write into (which
        appears as a whole when all is written) and `Options`.
      asked: the kinds of input of which it is made only where it is asked for.
      checker: 'module.function' in this folder: of the `Intake`, it raises UserError where the output cannot be made of
        it; empty where nothing can be lacking.
    """

    writes: str
    kinds: tuple[str, ...]
    needs_spacing: bool
    writer: str
    asked: tuple[str, ...] = ()
    checker: str = ""

    def check(self, intake: Intake) -> None:
        """Raise UserError where the output cannot be made of an input: before hours of inference, not after."""
        if self.checker:
            _function(self.checker)(intake)

    def write(self, prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
        """Write into `folder`. Libraries are imported only now."""
        _function(self.writer)(prediction, measurements, folder, options)


def _function(path: str) -> Callable[..., None]:
    module, name = path.split(".")
    found: Callable[..., None] = getattr(importlib.import_module(f"heartseg_jax.export.{module}"), name)
    return found


REFERABLE = "dicom_source.series_of"
EXPORTERS: dict[str, Exporter] = {
    "nifti": Exporter("labels.nii.gz, labels.txt", KINDS, False, "nifti.write_labels"),
    "seg_nrrd": Exporter("labels.seg.nrrd", KINDS, False, "seg_nrrd.write_seg_nrrd"),
    "png": Exporter("masks/", KINDS, False, "png.write_masks", ("dicom", "nifti", "nrrd"), "png.names_of"),
    "preview": Exporter("preview.png", KINDS, False, "preview.write_preview"),
    "review": Exporter("review.html", KINDS, False, "review_page.write_review", checker="review_page.check_review"),
    "meshes": Exporter("meshes/", KINDS, True, "meshes.write_meshes"),
    "valves": Exporter(
        "mitral_roi_ct.nii.gz, mitral_roi_labels.nii.gz, *.mrk.json", KINDS, True, "valves.write_valves"
    ),
    "dicom_seg": Exporter("segmentation.dcm", ("dicom",), True, "dicom_seg.write_segmentation", checker=REFERABLE),
    "dicom_sr": Exporter("report.dcm", ("dicom",), True, "dicom_sr.write_report", checker=REFERABLE),
    "rtstruct": Exporter("rtstruct.dcm", ("dicom",), True, "rtstruct.write_rtstruct", checker=REFERABLE),
}
"""Every exporter by its name in `--export`, in the order in which they run: later files refer to earlier ones."""


def exporters_for(kind: str, spacing_known: bool) -> list[str]:
    """Return the names of the exporters that an input allows."""
    return [name for name, one in EXPORTERS.items() if kind in one.kinds and (spacing_known or not one.needs_spacing)]


def default_exporters(kind: str, spacing_known: bool) -> list[str]:
    """Return the names of those that are made where none is asked for."""
    return [name for name in exporters_for(kind, spacing_known) if kind not in EXPORTERS[name].asked]
