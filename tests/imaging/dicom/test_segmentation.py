"""Segmentations written by highdicom, of every type, read back onto the grid of their series."""

import numpy as np
import pydicom
import pytest

from heartseg_jax.anatomy import HEART, Structure
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.segmentation import read_segmentation, references
from heartseg_jax.imaging.dicom.study import read_contents
from heartseg_jax.imaging.masks.label_maps import AORTA, merge_for
from tests.dicom_writer import write_series
from tests.studies import phantom, write_segmentation, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    # File names run against the positions: the order must come from the geometry.
    return write_study(folder, 0, names=[f"{99 - z:02d}.dcm" for z in range(24)])


@pytest.fixture(scope="module")
def block(study):
    return read_contents(study[0].parent).candidates[0].stack


def read(path, block, meanings=None):
    (header,) = read_contents(path).segmentations
    return read_segmentation(header, block, meanings)


@pytest.fixture(scope="module")
def labels():
    return np.where(phantom(0)[1] == 255, 0, phantom(0)[1])


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_every_type_gives_the_labels_that_were_written(study, block, labels, tmp_path, kind):
    write_segmentation(tmp_path / "seg.dcm", study, labels, kind=kind)
    found = read(tmp_path / "seg.dcm", block)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.known == set(range(1, 9))
    assert (found.strange, found.overlapping) == (0, 0)
    (header,) = read_contents(tmp_path / "seg.dcm").segmentations
    assert references(header).series_uid == block.frames[0].header.series_uid
    assert references(header).instances == {member.header.instance_uid for member in block.frames}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_frames_may_begin_within_a_byte(tmp_path, kind):
    """61 x 47 pixels are no whole number of bytes of one bit each."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 500, (21, 61, 47)).astype(np.int16)
    slices = write_series(tmp_path / "study", hu)
    labels = rng.integers(0, 9, hu.shape).astype(np.uint8)
    write_segmentation(tmp_path / "seg.dcm", slices, labels, kind=kind)
    odd = read_contents(tmp_path / "study").candidates[0].stack
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", odd).labels, labels)


def test_segments_are_told_by_name_where_codes_say_nothing(study, block, labels, tmp_path):
    write_segmentation(tmp_path / "seg.dcm", study, labels, codes=False)
    np.testing.assert_array_equal(read(tmp_path / "seg.dcm", block).labels, labels)


def test_other_anatomy_is_counted_and_what_is_not_drawn_is_not_known(study, block, labels, tmp_path):
    own = [*HEART.foreground[1:3], Structure(8, "liver", "LI", (0, 0, 0), (0, 0, 0), "10200004")]
    write_segmentation(tmp_path / "seg.dcm", study, labels, structures=own)
    found = read(tmp_path / "seg.dcm", block)
    assert found.known == {2, 3}
    assert found.strange == 1
    np.testing.assert_array_equal(found.labels, np.where(np.isin(labels, [2, 3]), labels, 0))


def test_a_map_names_segments_by_number_or_label(study, block, labels, tmp_path):
    own = [
        Structure(s.label, f"Struktur {s.label}", "", (0, 0, 0), (0, 0, 0), "10200004") for s in HEART.foreground[:2]
    ]
    write_segmentation(tmp_path / "seg.dcm", study, labels, structures=own)
    with pytest.raises(UserError, match="none of the 2 segments of seg.dcm is a structure.*--labels"):
        read(tmp_path / "seg.dcm", block)
    found = read(tmp_path / "seg.dcm", block, {"1": AORTA, "Struktur 2": 4})
    assert found.known == {AORTA, 4}
    np.testing.assert_array_equal(found.labels == AORTA, labels == 1)
    np.testing.assert_array_equal(found.labels == 4, labels == 2)


def test_one_vena_cava_is_not_the_structure(study, block, labels, tmp_path):
    cava = Structure(1, "inferior vena cava", "", (0, 0, 0), (0, 0, 0), "64131007")
    write_segmentation(tmp_path / "seg.dcm", study, np.where(labels == 8, 1, 0), structures=[cava])
    assert merge_for(read(tmp_path / "seg.dcm", block).known) == (0,) * 9


def test_a_voxel_of_two_structures_is_nobodys(study, block, labels, tmp_path):
    both = np.stack([labels == 2, (labels == 3) | (labels == 2) & (np.arange(48) < 24)], axis=-1)
    write_segmentation(tmp_path / "seg.dcm", study, both, structures=HEART.foreground[1:3])
    found = read(tmp_path / "seg.dcm", block)
    claimed = both.all(axis=-1)
    assert found.overlapping == claimed.sum() > 0
    expected = np.where(claimed, 255, np.where(labels == 2, 2, np.where(labels == 3, 3, 0)))
    np.testing.assert_array_equal(found.labels, expected)


def moved(dataset):
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 2


def turned(dataset):
    shared = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    shared.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def stretched(dataset):
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1, 1]


def other_size(dataset):
    dataset.Rows, dataset.Columns = 32, 96


def unsaid(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[3].SegmentIdentificationSequence


def unknown_segment(dataset):
    dataset.PerFrameFunctionalGroupsSequence[3].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 77


def placeless(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def cut(dataset):
    dataset.PixelData = dataset.PixelData[:100]


@pytest.mark.parametrize(
    ("damage", "stated"),
    [
        (moved, r"does not lie on the grid of its series: a frame lies 2\.0 mm from"),
        (turned, "does not lie on the grid of its series: its slices have another orientation"),
        (stretched, "does not lie on the grid of its series: its pixels are of another size"),
        (other_size, "does not lie on the grid of its series: it has 32 x 96 pixels, the series 64 x 48"),
        (unsaid, "a frame does not say of which segment it is; export"),
        (unknown_segment, "a frame is of a segment that is not described"),
        (placeless, "a frame does not say where it lies"),
        (cut, "its pixels .* cannot be decoded"),
    ],
)
def test_what_does_not_fit_is_one_line(study, block, labels, tmp_path, damage, stated):
    write_segmentation(tmp_path / "seg.dcm", study, labels)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    damage(dataset)
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(UserError, match=f"seg.dcm:? {stated}|seg.dcm: {stated}"):
        read(tmp_path / "seg.dcm", block)
