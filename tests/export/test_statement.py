"""Every registered exporter, those to come too: research use only and each warning are found in what it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from heartseg_jax.export.registry import EXPORTERS, Options
from heartseg_jax.export.statement import RESEARCH_USE
from tests.export.studies import GEOMETRIES, WARNING, case
from tests.valves import saddle

WARNINGS = (WARNING, "no_contrast: 38 HU; take a scan with contrast", "small_field: 90 mm; take a larger one")
WARNINGS += tuple(f"check_{number}: {'what was seen in it, ' * 20}and what to do" for number in range(9))


def text_of(path: Path) -> str:
    """The text in a file, wherever its format keeps it."""
    if path.suffix == ".dcm":
        return "\n".join(str(element.value) for element in pydicom.dcmread(path).iterall() if element.VR != "SQ")
    if path.suffixes[-2:] == [".nii", ".gz"]:
        return b"".join(one.get_content() for one in nibabel.load(path).header.extensions).decode()
    if path.suffix == ".png":
        return Image.open(path).text["Comment"]
    return path.read_bytes().decode("latin-1")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return case(tmp_path_factory.mktemp("study"), GEOMETRIES["oblique7-3mm"])


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name != "dicom_sr"])
def test_research_use_and_every_warning(name, study, tmp_path):
    check([name], study, tmp_path)


def test_research_use_and_every_warning_of_the_report(study, tmp_path):
    """The report refers to the segmentation that is written before it."""
    check(["dicom_seg", "dicom_sr"], study, tmp_path)


def check(names, study, folder):
    # Whatever this study's labels show: a valve that is refused has no file.
    valve = saddle(centre=np.array(study.prediction.volume.origin_mm) + 30)
    measurements = replace(study.measurements, warnings=WARNINGS, mitral=valve)
    seen = set()
    for name in names:
        EXPORTERS[name].write(study.prediction, measurements, folder, Options())
        written = {path for path in folder.rglob("*") if path.is_file()} - seen
        seen |= written
        assert written, name
        texts = [text_of(path) for path in written]
        for needed in (RESEARCH_USE, *WARNINGS):
            assert any(needed in text for text in texts), f"{name}: {needed}"
        # STL has 80 bytes: the rest is in README.txt beside it. No file is without the sentence.
        assert all(RESEARCH_USE in text for text in texts), name
