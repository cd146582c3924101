"""A valve's region of interest and markups: read back by independent libraries, every voxel at its place."""

import dataclasses
import json
import re

import jsonschema
import nibabel
import numpy as np
import pydicom
import pytest
from scipy.interpolate import RegularGridInterpolator

from heartseg_jax.anatomy import TUMOUR
from heartseg_jax.export.registry import EXPORTERS, Options, default_exporters
from heartseg_jax.export.valves import write_valves
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.measure.results import REFUSED, UNCERTAIN, ValveMeasurement
from tests.dicom_writer import write_series
from tests.export import studies
from tests.export.markups_schema import ACCEPTED, SCHEMA
from tests.export.studies import GEOMETRIES, ORIGIN, WARNING
from tests.valves import of_phantom, saddle

MITRAL_FILES = ["mitral_annulus.mrk.json", "mitral_plane.mrk.json", "mitral_roi_ct.nii.gz", "mitral_roi_labels.nii.gz"]


def in_a_corner(volume, **changes):
    """A small tilted valve between the middle and a corner of a volume, so that its box leaves the volume."""
    place = 0.7 * (np.array(volume.voxels.shape) - 1) * volume.spacing_mm
    return saddle(volume.origin_mm + volume.direction @ place, (2, -3, 1), (1, 1, 0), (5.0, 6.0), **changes)


def written(case, folder, **valves):
    """Write the files of a case with these valves; return their names."""
    measurements = dataclasses.replace(case.measurements, **valves)
    write_valves(case.prediction, measurements, folder, Options())
    return sorted(path.name for path in folder.iterdir())


def loaded(path):
    """The one markup in a file, which meets Slicer's schema."""
    content = json.loads(path.read_text())
    jsonschema.Draft7Validator(SCHEMA).validate(content)
    assert re.match(ACCEPTED, content["@schema"].lower())
    (markup,) = content["markups"]
    return markup


def positions(markup):
    """The control points of a markup in LPS."""
    assert markup["coordinateSystem"] == "LPS"
    return np.array([point["position"] for point in markup["controlPoints"]])


def voxels_of(case):
    """A function from positions [N, 3] in LPS to voxels [N, 3] (z, y, x), HU and labels: from the files' attributes."""
    slices = [pydicom.dcmread(path) for path in (case.folder / "study").iterdir()]
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    slices.sort(key=lambda one: np.cross(row, column) @ np.array(one.ImagePositionPatient, float))
    first, last = (np.array(slices[k].ImagePositionPatient, float) for k in (0, -1))
    down, right = slices[0].PixelSpacing
    steps = np.stack([(last - first) / (len(slices) - 1), column * float(down), row * float(right)], axis=1)
    hu = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])
    labels = np.stack([case.truth[studies.place(one.ImagePositionPatient)] for one in slices])
    return lambda points: np.linalg.solve(steps, (points - first).T).T, hu, labels


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_regions_voxels_are_the_ct_at_their_positions(name, case_of, tmp_path):
    case = case_of(name)
    written(case, tmp_path, mitral=in_a_corner(case.prediction.volume))
    images, labels = (nibabel.load(tmp_path / f"mitral_roi_{kind}.nii.gz") for kind in ("ct", "labels"))
    found, found_labels = np.asarray(images.dataobj), np.asarray(labels.dataobj)
    assert (found.dtype, found_labels.dtype) == (np.int16, np.uint8)
    indices = np.indices(found.shape).reshape(3, -1).T
    points = nibabel.affines.apply_affine(images.affine, indices) * [-1, -1, 1]
    place, hu, truth = voxels_of(case)
    at = place(points)
    last = np.array(hu.shape) - 1
    shown = ((at >= -0.5) & (at <= last + 0.5)).all(1)
    certain = np.abs(at + 0.5 - np.clip(at + 0.5, 1e-3, last + 1 - 1e-3)).max(1) != 1e-3  # not on an outer face
    assert 0.1 < shown.mean() < 1
    linear = RegularGridInterpolator([np.arange(n) for n in hu.shape], hu)
    expected = np.where(shown, linear(np.clip(at, 0, last)), -1024)
    assert np.abs(found.ravel() - expected)[certain].max() < 0.51  # rounded to whole HU
    assert np.ptp(expected[shown]) > 500
    nearest = np.rint(np.clip(at, 0, last)).astype(int)
    expected = np.where(shown, truth[tuple(nearest.T)], 255)
    between = np.abs(at - np.floor(at) - 0.5).min(1) < 1e-3
    assert (found_labels.ravel() == expected)[certain & ~between].all()
    assert len(np.unique(expected)) > 3


@pytest.mark.parametrize("name", ["axial-3mm", "oblique30-1mm", "negated-3mm"])
def test_both_transforms_are_the_boxs_own(name, case_of, tmp_path):
    case = case_of(name)
    valve = in_a_corner(case.prediction.volume)
    written(case, tmp_path, mitral=valve)
    for kind in ("ct", "labels"):
        image = nibabel.load(tmp_path / f"mitral_roi_{kind}.nii.gz")
        assert image.shape == (32, 32, 90)  # 1.3 * 12 mm, and 45 mm
        across = np.cross(valve.normal, valve.septal)
        expected = 0.5 * np.stack([valve.septal, across, valve.normal], 1) * np.array([[-1], [-1], [1]])
        (sform, s_code), (qform, q_code) = image.get_sform(coded=True), image.get_qform(coded=True)
        assert s_code == q_code == 1
        np.testing.assert_allclose(sform[:3, :3], expected, atol=1e-6)
        np.testing.assert_allclose(qform, sform, atol=2e-5)
        centre = nibabel.affines.apply_affine(sform, [15.5, 15.5, 39.5]) * [-1, -1, 1]
        np.testing.assert_allclose(centre, valve.centre_mm, atol=1e-4)
        assert b"Research use only" in image.header["descrip"].item()
        (said,) = [extension.get_content() for extension in image.header.extensions]
        assert WARNING in str(said)


def test_what_lies_outside_is_said(case_of, tmp_path, capsys):
    case = case_of("axial-1mm")
    written(case, tmp_path, mitral=in_a_corner(case.prediction.volume))
    image = nibabel.load(tmp_path / "mitral_roi_ct.nii.gz")
    outside = np.asarray(nibabel.load(tmp_path / "mitral_roi_labels.nii.gz").dataobj) == 255
    assert 0 < outside.mean() < 1
    np.testing.assert_array_equal(np.asarray(image.dataobj) == -1024, outside)
    share = f"{100 * outside.mean():.0f} %"
    assert share in capsys.readouterr().err
    assert share in str(image.header.extensions[0].get_content())


def test_withheld_labels_stay_withheld(case_of, tmp_path):
    case = case_of("axial-3mm")
    valve = in_a_corner(case.prediction.volume)
    written(case, tmp_path / "all", mitral=valve)
    present = set(np.unique(nibabel.load(tmp_path / "all" / "mitral_roi_labels.nii.gz").dataobj)) - {0}
    label = min(present)
    name = studies.HEART.structures[label].name
    measurements = studies.with_row(case.measurements, name, status=REFUSED, reason="", withheld=True)
    written(case._replace(measurements=measurements), tmp_path / "less", mitral=valve)
    left = set(np.unique(nibabel.load(tmp_path / "less" / "mitral_roi_labels.nii.gz").dataobj)) - {0}
    assert left == present - {label}


def test_the_annulus_is_a_closed_curve_on_its_points(case_of, tmp_path):
    case = case_of("oblique7-3mm")
    valve = in_a_corner(case.prediction.volume)
    written(case, tmp_path, mitral=valve)
    curve = loaded(tmp_path / "mitral_annulus.mrk.json")
    assert (curve["type"], curve["name"]) == ("ClosedCurve", "mitral_annulus")
    points = positions(curve)
    np.testing.assert_allclose(
        points, valve.curve_mm[np.arange(60) * 8 // 5], atol=1e-4
    )  # 60 of 96, as evenly as can be
    assert len(positions(loaded_of(tmp_path, dataclasses.replace(valve, curve_mm=valve.curve_mm[::7])))) == 14


def loaded_of(folder, valve):
    """The closed curve that a valve becomes."""
    from heartseg_jax.export import markups

    (folder / "again.mrk.json").write_text(json.dumps(markups.annulus(valve, [])))
    return loaded(folder / "again.mrk.json")


def test_three_points_define_the_plane(case_of, tmp_path):
    """As vtkMRMLMarkupsPlaneNode does it: x from the first to the second point, z across both, the first the centre."""
    case = case_of("oblique7-3mm")
    valve = in_a_corner(case.prediction.volume)
    written(case, tmp_path, mitral=valve)
    plane = loaded(tmp_path / "mitral_plane.mrk.json")
    assert (plane["type"], plane["name"], plane["sizeMode"]) == ("Plane", "mitral_plane", "absolute")
    assert not {"planeType", "objectToBase", "baseToNode"} & set(plane)
    first, second, third = positions(plane)
    normal = np.cross(second - first, third - first)
    np.testing.assert_allclose(normal / np.linalg.norm(normal), valve.normal, atol=1e-5)
    np.testing.assert_allclose(first, valve.centre_mm, atol=1e-4)
    np.testing.assert_allclose((second - first) / 7.8, valve.septal, atol=1e-4)  # half of 1.3 * 12 mm
    assert plane["size"] == [15.6, 15.6, 0.0]
    np.testing.assert_allclose(plane["center"], valve.centre_mm, atol=1e-4)
    np.testing.assert_allclose(plane["normal"], valve.normal, atol=1e-8)


def test_every_file_says_what_it_is(case_of, tmp_path):
    case = case_of("axial-3mm")
    valve = in_a_corner(case.prediction.volume, status=UNCERTAIN, reason="slices of 3 mm are coarse")
    assert written(case, tmp_path, mitral=valve) == MITRAL_FILES
    for name in MITRAL_FILES[:2]:
        text = (tmp_path / name).read_text()
        assert "Research use only" in text
        assert WARNING in text
        assert "slices of 3 mm are coarse" in text
        assert "zwicknagl" not in text.lower()


def test_a_refused_valve_leaves_nothing_but_its_reason(case_of, tmp_path, capsys):
    case = case_of("axial-3mm")
    refused = ValveMeasurement("mitral", REFUSED, "the contact is 3 voxels")
    tricuspid = in_a_corner(case.prediction.volume, valve="tricuspid", septal=None)
    tmp_path.joinpath("a").mkdir()
    assert written(case, tmp_path / "a", mitral=refused) == []
    said = capsys.readouterr().err
    assert "mitral valve" in said
    assert "the contact is 3 voxels" in said
    assert "tricuspid valve" in said
    assert written(case, tmp_path, mitral=refused, tricuspid=tricuspid) == [
        "a", "tricuspid_annulus.mrk.json", "tricuspid_plane.mrk.json"
    ]  # fmt: skip


def test_other_label_sets_have_no_valves_and_nothing_is_said(case_of, tmp_path, capsys):
    case = case_of("axial-3mm")
    contract = dataclasses.replace(case.prediction.contract, task=TUMOUR.name)
    case = case._replace(prediction=dataclasses.replace(case.prediction, contract=contract))
    assert written(case, tmp_path) == []
    assert capsys.readouterr().err == ""


def test_it_is_made_by_default_where_the_spacing_is_known():
    assert "mitral_roi_ct.nii.gz" in EXPORTERS["valves"].writes
    for kind in ("dicom", "nifti", "nrrd"):
        assert "valves" in default_exporters(kind, True)
    assert "valves" not in default_exporters("pictures", False)


def test_the_phantoms_own_annulus_keeps_its_place_in_an_oblique_study(tmp_path):
    """Its rim lies between atrium and ventricle: near every point of the curve both labels are in the region."""
    made = generate(5, 0, PhantomSpec((34, 36, 36), (4.0, 3.5, 3.5)))
    geometry = GEOMETRIES["oblique30-3mm"]
    spacing, turn = made.volume.spacing_mm, geometry.direction
    write_series(tmp_path / "study", made.volume.voxels, spacing, ORIGIN, turn)
    zyx = (made.annulus.rim_mm - np.array(made.volume.origin_mm))[:, ::-1]  # mm along slices, rows and columns
    moved = dataclasses.replace(
        made.annulus,
        rim_mm=ORIGIN + zyx @ turn.T,
        centre_mm=ORIGIN + (np.array(made.annulus.centre_mm) - made.volume.origin_mm)[::-1] @ turn.T,
        normal=np.array(made.annulus.normal)[::-1] @ turn.T,
    )
    labels = np.where(made.labels == 255, 0, made.labels).astype(np.uint8)
    places = [
        studies.place(np.array([float(f"{v:.12g}"[:16]) for v in ORIGIN + z * spacing[0] * turn[:, 0]]))
        for z in range(34)
    ]
    prediction = studies.predicted(tmp_path / "study", dict(zip(places, labels, strict=True)))
    case = studies.Case(prediction, studies.measured(prediction.labels, prediction.volume), {}, tmp_path)
    (tmp_path / "out").mkdir()
    written(case, tmp_path / "out", mitral=of_phantom(moved))
    image = nibabel.load(tmp_path / "out" / "mitral_roi_labels.nii.gz")
    found, inverse = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    rim = positions(loaded(tmp_path / "out" / "mitral_annulus.mrk.json")) * [-1, -1, 1]
    both = 0
    for i, j, k in np.rint(nibabel.affines.apply_affine(inverse, rim)).astype(int):
        around = found[i - 10 : i + 11, j - 10 : j + 11, k - 10 : k + 11]  # 5 mm to each side
        both += {2, 3} <= set(around.ravel())
    assert both >= 0.9 * len(rim)
    middle = [n // 2 for n in found.shape[:2]]
    assert found[(*middle, 10)] == 2  # 15 mm into the atrium
    assert found[(*middle, 70)] == 3  # 15 mm into the ventricle
