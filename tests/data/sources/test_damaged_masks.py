"""Hundreds of damaged NRRD files and structure sets: each is read, or refused in one line; none crashes."""

import gzip
import io
import random

import nrrd
import numpy as np
import pytest

from heartseg_jax.data.sources.volumes import read_label_file
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.elements import Unreadable
from heartseg_jax.imaging.dicom.files import Source
from heartseg_jax.imaging.dicom.header import read_header
from heartseg_jax.imaging.dicom.rtstruct import read_structure_set, structure_set_references
from heartseg_jax.imaging.dicom.study import read_contents
from heartseg_jax.imaging.nrrd import geometry_fields, read_grid
from heartseg_jax.imaging.volume import Volume
from tests.dicom_writer import axes
from tests.imaging.dicom import test_rtstruct as drawn

IMAGE = Volume(np.zeros((4, 6, 5), np.int16), (3.0, 1.5, 1.25), (-60.0, -75.5, -200.0), axes(10))
LABELS = np.zeros((4, 6, 5), np.uint8)
LABELS[1:3, 1:4, 1:3], LABELS[3, 4, 4] = 1, 2
FIELDS = {"Segment0_Name": "LA", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
FIELDS |= {"Segment1_Name": "LV", "Segment1_LabelValue": "2", "Segment1_Layer": "0"}
NASTY = (
    "nan",
    "-1",
    "0",
    "1e999",
    "99999999999",
    "none",
    "(nan,0,0)",
    "",
    "\x00",
    "é",
    "gzip",
    "raw",
    "ascii",
    "block",
)


def nrrd_bytes(tmp_path, encoding):
    nrrd.write(str(tmp_path / "whole.nrrd"), LABELS.T, {**geometry_fields(IMAGE), **FIELDS, "encoding": encoding})
    return (tmp_path / "whole.nrrd").read_bytes()


def mutant(whole, random_):
    """The bytes cut, with some of them changed, or with a word of the header replaced."""
    header = whole.index(b"\n\n")
    kind = random_.randrange(4)
    if kind == 0:
        return whole[: random_.randrange(len(whole))]
    if kind == 1:
        changed = bytearray(whole)
        for _ in range(random_.randint(1, 4)):
            changed[random_.randrange(len(changed))] = random_.randrange(256)
        return bytes(changed)
    lines = whole[:header].split(b"\n")
    place = random_.randrange(1, len(lines))
    if kind == 2:
        del lines[place]
    else:
        words = lines[place].split(b" ")
        words[random_.randrange(len(words))] = random_.choice(NASTY).encode()
        lines[place] = b" ".join(words)
    return b"\n".join(lines) + whole[header:]


def one_line(error, name):
    text = str(error)
    assert "\n" not in text
    assert name in text
    assert len(text) < 500


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy's, of text that is no number
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_nrrd(tmp_path, encoding):
    whole, random_, read = nrrd_bytes(tmp_path, encoding), random.Random(encoding), 0
    path = tmp_path / "a.seg.nrrd"
    for _ in range(75):
        path.write_bytes(mutant(whole, random_))
        try:
            found = read_label_file(path, IMAGE, None)
        except UserError as error:
            one_line(error, "a.seg.nrrd")
            continue
        assert found.labels.shape == IMAGE.voxels.shape
        assert set(np.unique(found.labels)) <= {0, 1, 2, 3, 4, 5, 6, 7, 8, 101, 102, 103, 104, 255}
        read += 1
    assert 3 < read < 60


def test_sizes_that_are_claimed_are_not_unpacked(tmp_path):
    """Ten megabytes of zeros where 120 bytes are stated, and terabytes stated where there are 120."""
    whole = nrrd_bytes(tmp_path, "gzip")
    header = whole[: whole.index(b"\n\n") + 2]
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes(header + gzip.compress(bytes(10_000_000)))
    with pytest.raises(UserError, match="more than the 120 bytes"):
        read_label_file(path, IMAGE, None)
    for claim in (b"5000 60000 40000", b"2000 2000 2000", b"99999999999 99999999999 99999999999"):
        path.write_bytes(whole.replace(b"5 6 4", claim))
        with pytest.raises(UserError, match=r"a\.seg\.nrrd"):
            read_label_file(path, IMAGE, None)
    path.write_bytes(b"NRRD0004\n# " + b"a" * 2_000_000)
    with pytest.raises(UserError, match="no end"):
        read_grid(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's
def test_structure_sets(tmp_path):
    hu = np.random.default_rng(0).integers(-100, 300, drawn.SHAPE).astype(np.int16)
    drawn.write_series(tmp_path / "study", hu, drawn.SPACING, drawn.ORIGIN, drawn.DIRECTION)
    stack = read_contents(tmp_path / "study").candidates[0].stack
    box = drawn.box(3, 4, 8, 9)
    regions = {"LA": [drawn.contour(z, box) for z in (2, 3)], "LV": [drawn.contour(5, box)], "x": []}
    drawn.write(tmp_path / "rt.dcm", regions)
    whole, random_, read = (tmp_path / "rt.dcm").read_bytes(), random.Random(1), 0
    for _ in range(250):
        changed = bytearray(whole[: random_.randrange(200, len(whole))] if random_.random() < 0.3 else whole)
        for _ in range(random_.randint(0, 6)):
            byte = random_.choice((0, 32, 45, 57, 92, 255, random_.randrange(256)))
            changed[random_.randrange(132, len(changed))] = byte
        source = Source("rt.dcm", lambda data=bytes(changed): io.BytesIO(data))
        try:
            header = read_header(source)
            structure_set_references(header)
            found, _ = read_structure_set(header, stack)
        except UserError as error:
            one_line(error, "rt.dcm")
            continue
        except Unreadable:
            continue
        assert found.labels.shape == drawn.SHAPE
        read += 1
    assert 20 < read < 240
