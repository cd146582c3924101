"""One study per geometry, written once."""

import pytest

from heartseg_jax.export.dicom_seg import write_segmentation
from heartseg_jax.export.registry import Options
from tests.export import studies


@pytest.fixture(scope="session")
def case_of(tmp_path_factory):
    """Function from a name of `studies.GEOMETRIES` to its case, made at first use."""
    made = {}

    def case(name: str) -> studies.Case:
        if name not in made:
            made[name] = studies.case(tmp_path_factory.mktemp(name), studies.GEOMETRIES[name])
        return made[name]

    return case


@pytest.fixture(scope="session")
def segmentation_of(case_of, tmp_path_factory):
    """Function from a geometry's name, and whether as LABELMAP, to the path of its segmentation, written once."""
    made = {}

    def segmentation(name: str, labelmap: bool = False):
        if (name, labelmap) not in made:
            case, folder = case_of(name), tmp_path_factory.mktemp("seg")
            write_segmentation(case.prediction, case.measurements, folder, Options(labelmap=labelmap))
            made[name, labelmap] = folder / "segmentation.dcm"
        return made[name, labelmap]

    return segmentation
