"""3D Slicer's segmentations of every version, written by pynrrd, onto the grid of their image."""

import nrrd
import numpy as np
import pytest

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.label_maps import AORTA
from heartseg_jax.imaging.placement import place
from heartseg_jax.imaging.slicer_segments import read_slicer_segments
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import axes

SHAPE = (5, 7, 6)
IMAGE = Volume(np.zeros(SHAPE, np.int16), (3.0, 0.75, 0.5), (-10.5, 20.25, 30.0), axes(17))
TAG = "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^{}^X~^^~"
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[1:3, 2:5, 1:4], TRUTH[3, 4, 3] = 2, 3


def segments(*rows, layers=True):
    """Header fields of (name, value, layer[, code])."""
    fields = {}
    for k, (name, value, layer, *code) in enumerate(rows):
        fields[f"Segment{k}_ID"], fields[f"Segment{k}_Name"] = f"Segment_{k + 1}", name
        if layers:
            fields[f"Segment{k}_LabelValue"], fields[f"Segment{k}_Layer"] = str(value), str(layer)
        if code:
            fields[f"Segment{k}_Tags"] = f"Segmentation.Status:inprogress|TerminologyEntry:{TAG.format(*code)}|"
    return fields


TWO = segments(("Left Atrium", 1, 0), ("left-ventricle", 2, 0))


def write(path, voxels, fields, box=(0, 0, 0), kind="list", **more):
    """Write `voxels [Z, Y, X]`, or `[L, Z, Y, X]`, of the image's part that begins at `box` (z, y, x)."""
    directions = (IMAGE.direction * IMAGE.spacing_mm)[:, ::-1].T
    origin = np.array(IMAGE.origin_mm) + IMAGE.direction @ (np.array(box) * IMAGE.spacing_mm)
    kinds = ["domain"] * 3
    if voxels.ndim == 4:
        directions, kinds = np.vstack([np.full(3, np.nan), directions]), [kind, *kinds]
    header = {"space": "left-posterior-superior", "space directions": directions, "space origin": origin}
    nrrd.write(
        str(path),
        voxels.T if voxels.ndim == 3 else voxels.transpose(0, 3, 2, 1),
        {**header, "kinds": kinds, **fields, **more},
    )
    return path


def values(truth=TRUTH):
    """The labels 2 and 3 as the values 1 and 2."""
    return np.where(truth > 0, truth - 1, 0).astype(np.uint8)


def test_one_layer(tmp_path):
    read, found = read_slicer_segments(write(tmp_path / "a.seg.nrrd", values(), TWO), IMAGE)
    np.testing.assert_array_equal(read.labels, TRUTH)
    assert (read.known, read.strange, read.overlapping, found) == ({2, 3}, 0, 0, [])


def test_what_is_cropped_lands_in_its_place(tmp_path):
    path = write(tmp_path / "a.seg.nrrd", values()[1:4, 2:5, 1:4], TWO, box=(1, 2, 1))
    np.testing.assert_array_equal(read_slicer_segments(path, IMAGE)[0].labels, TRUTH)
    # Larger than the image, where only background is beyond it.
    wide = write(tmp_path / "b.seg.nrrd", np.pad(values(), 2), TWO, box=(-2, -2, -2))
    np.testing.assert_array_equal(read_slicer_segments(wide, IMAGE)[0].labels, TRUTH)


def test_right_anterior_superior_and_turned_axes(tmp_path):
    """The same voxels from the other corner, rows first, in RAS."""
    turned = values()[::-1, :, ::-1].transpose(1, 0, 2)
    far = np.array(IMAGE.origin_mm) + IMAGE.direction @ (np.array([4, 0, 5]) * IMAGE.spacing_mm)
    columns = (IMAGE.direction * IMAGE.spacing_mm * (-1, 1, -1))[:, [1, 0, 2]] * np.array([[-1], [-1], [1]])
    header = {"space": "right-anterior-superior", "space directions": columns[:, ::-1].T}
    path = tmp_path / "a.seg.nrrd"
    nrrd.write(str(path), turned.T, {**header, "space origin": far * (-1, -1, 1), **TWO})
    np.testing.assert_array_equal(read_slicer_segments(path, IMAGE)[0].labels, TRUTH)


@pytest.mark.parametrize("kind", ["list", "vector"])
def test_layers_that_overlap_are_ignored_where_they_do(tmp_path, kind):
    atrium, ventricle = TRUTH == 2, TRUTH == 3
    ventricle = ventricle | (np.arange(SHAPE[0]) == 2)[:, None, None] & atrium  # one slice of the atrium as well
    stack = np.stack([atrium, ventricle]).astype(np.uint8)
    stack[0][TRUTH == 0] = 0
    new = segments(("LA", 1, 0), ("LV", 1, 1))
    old = segments(("LA", 1, 0), ("LV", 1, 1), layers=False)
    for fields in (new, old):
        read, _ = read_slicer_segments(write(tmp_path / "a.seg.nrrd", stack, fields, kind=kind), IMAGE)
        np.testing.assert_array_equal(read.labels[TRUTH == 3], 3)
        np.testing.assert_array_equal(read.labels[1][TRUTH[1] == 2], 2)
        np.testing.assert_array_equal(read.labels[2][TRUTH[2] == 2], 255)
        assert read.overlapping == 9


def test_which_structure_a_segment_is(tmp_path):
    rows = [("Aorta", 1, 0), ("Segment_1", 2, 0), ("leber", 4, 0), ("erster", 5, 0, "87878005"), ("Aur_cula", 6, 0)]
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[0, 0, :5] = [1, 2, 4, 5, 6]
    path = write(tmp_path / "a.seg.nrrd", voxels, segments(*rows))
    path.write_bytes(path.read_bytes().replace(b"Aur_cula", "Aurícula".encode()))
    read, found = read_slicer_segments(path, IMAGE, {"Aurícula": 2, "4": 0})
    assert read.labels[0, 0].tolist() == [AORTA, 0, 0, 3, 2, 0]
    assert read.known == {AORTA, 3, 2}
    assert read.strange == 1
    assert [one.check for one in found] == ["unnamed_segments"]


def test_a_segment_without_a_voxel_is_known_and_warned_of(tmp_path):
    rows = segments(("LA", 1, 0), ("LV", 2, 0), ("vena_cava", 3, 0))
    read, found = read_slicer_segments(write(tmp_path / "a.seg.nrrd", values(), rows), IMAGE)
    assert read.known == {2, 3, 8}
    assert [one.check for one in found] == ["empty_segments"]


def test_a_plain_label_map_is_left_to_its_values(tmp_path):
    assert read_slicer_segments(write(tmp_path / "a.nrrd", TRUTH, {}), IMAGE) is None


OTHER = Volume(IMAGE.voxels, IMAGE.spacing_mm, (-10.5, 20.25, 30.4), IMAGE.direction)


@pytest.mark.parametrize(
    ("voxels", "fields", "image", "words"),
    [
        (values(), TWO, OTHER, "reference volume's geometry"),
        (values(), TWO, Volume(IMAGE.voxels, (3.0, 0.8, 0.5), IMAGE.origin_mm, IMAGE.direction), "does not lie"),
        (values(), TWO, Volume(IMAGE.voxels, IMAGE.spacing_mm, IMAGE.origin_mm, axes(18)), "does not lie"),
        (values(), TWO, Volume(IMAGE.voxels[:3], IMAGE.spacing_mm, IMAGE.origin_mm, IMAGE.direction), "outside"),
        (values(), segments(("LA", 1, 0)), IMAGE, "none of its segments describes: 2"),
        (values(), segments(("LA", 1, 0), ("LV", 1, 0)), IMAGE, "two segments"),
        (values(), segments(("LA", 1, 0), ("LV", 2, 1)), IMAGE, "layer 1"),
        (values(), segments(("LA", "x", 0), ("LV", 2, 0)), IMAGE, "no number"),
        (values(), segments(("Leber", 1, 0), ("Milz", 2, 0)), IMAGE, "none of the 2 segments"),
        (values(), segments(("LA", 1, 0), ("LV", 2, 0, "82471001")), IMAGE, "correct one of them"),
        (np.stack([values()] * 3), segments(("LA", 1, 0), ("LV", 1, 1), layers=False), IMAGE, "2 segments and holds 3"),
    ],
)
def test_refusals(tmp_path, voxels, fields, image, words):
    with pytest.raises(UserError, match=words) as error:
        read_slicer_segments(write(tmp_path / "a.seg.nrrd", voxels, fields), image)
    assert "a.seg.nrrd" in str(error.value)


def test_a_tenth_of_a_voxel_is_rounding():
    near = Volume(IMAGE.voxels, (3.0, 0.7507, 0.5), IMAGE.origin_mm, IMAGE.direction)  # 6 rows: 0.006 voxels
    assert place(near, IMAGE, "a").start == (0, 0, 0)
