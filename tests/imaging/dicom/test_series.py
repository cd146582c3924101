"""A known volume written as DICOM in many ways and read back: HU, geometry, order, phases, and what is refused."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

import main
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.dicom.study import read_contents, read_study
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from tests.dicom_writer import PLANTED, axes, write_enhanced, write_series

SPACING = (3.0, 1.5, 1.25)
ORIGIN = (-60.0, -75.5, -200.0)


@pytest.fixture(scope="module")
def hu():
    volume = generate(5, 0, PhantomSpec((24, 64, 48), (5.0, 4.0, 5.0))).volume
    return np.maximum(volume.voxels, -1024).astype(np.int16)


def same(study, hu, spacing=SPACING, origin=ORIGIN, direction=None):
    volume = study.volume
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, hu)
    np.testing.assert_allclose(volume.spacing_mm, spacing, atol=1e-6)
    np.testing.assert_allclose(volume.origin_mm, origin, atol=1e-6)
    np.testing.assert_allclose(volume.direction, axes() if direction is None else direction, atol=1e-9)


def checks(findings):
    return {finding.check: finding.level for finding in findings}


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ExplicitVRLittleEndian,
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEG2000Lossless,
        uid.JPEGLSLossless,
    ],
    ids=lambda syntax: uid.UID(syntax).keyword,
)
def test_every_lossless_transfer_syntax_gives_the_same_hu_and_geometry(hu, tmp_path, syntax):
    write_series(tmp_path / "study", hu, syntax=syntax)
    same(read_study(tmp_path / "study"), hu)


@pytest.mark.parametrize("degrees", [0.0, 7.0, 30.0])
@pytest.mark.parametrize("mirrored", [False, True], ids=["", "negated column direction"])
def test_oblique_and_mirrored_slices_keep_their_place(hu, tmp_path, degrees, mirrored):
    direction = axes(degrees)
    if mirrored:
        # The columns run the other way, and so does the normal: the slices are numbered against it.
        direction = direction * np.array([1, -1, 1])
    write_series(tmp_path / "study", hu, direction=direction)
    volume = read_study(tmp_path / "study").volume
    # Whatever order was chosen, each voxel must lie where it was written, and have its value.
    placed = lambda v, k: np.array(v.origin_mm) + v.direction @ (np.array(k) * v.spacing_mm)  # noqa: E731
    order = volume.voxels if not mirrored else volume.voxels[::-1]
    np.testing.assert_array_equal(order, hu)
    z = 0 if not mirrored else len(hu) - 1
    np.testing.assert_allclose(placed(volume, (z, 0, 0)), ORIGIN, atol=1e-6)
    expected = np.array(ORIGIN) + direction @ (np.array([23, 63, 47]) * SPACING)
    np.testing.assert_allclose(placed(volume, (23 - z, 63, 47)), expected, atol=1e-6)
    assert np.linalg.det(volume.direction) == pytest.approx(np.linalg.det(axes()))


def test_the_order_is_that_of_positions_whatever_names_and_numbers_say(hu, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{n:08x}" for n in rng.permutation(len(hu))]

    def lie(dataset, z):
        dataset.InstanceNumber = str(int(rng.integers(1, 100)))
        dataset.SliceLocation = str(-z)

    write_series(tmp_path / "study" / "deep" / "er", hu, names=names, edit=lie)
    study = read_study(tmp_path / "study")
    same(study, hu)
    assert [frame.uid.rsplit(".", 1)[1] for frame in study.volume.frames] == [str(z + 1) for z in range(len(hu))]


def test_enhanced_multi_frame_ct(hu, tmp_path):
    write_enhanced(tmp_path / "one.dcm", hu, SPACING, ORIGIN, axes(7))
    study = read_study(tmp_path / "one.dcm")
    same(study, hu, direction=axes(7))
    order = np.random.default_rng(3).permutation(len(hu))
    assert [frame.number for frame in study.volume.frames] == [
        int(np.flatnonzero(order == z)[0]) + 1 for z in range(24)
    ]
    assert checks(study.findings)["multi_frame"] == "note"


def test_a_zip_a_dicomdir_and_other_files_beside(hu, tmp_path):
    paths = write_series(tmp_path / "study", hu)
    (tmp_path / "study" / "report.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "study" / "DICOMDIR").write_bytes(b"not read at all")
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"a/b/{path.name}")
    for source in (tmp_path / "study", tmp_path / "study" / "DICOMDIR", tmp_path / "study.zip"):
        same(read_study(source), hu)
    assert checks(read_study(tmp_path / "study").findings)["not_dicom"] == "note"


def test_two_heart_phases_are_two_candidates(hu, tmp_path):
    for part, phase in enumerate(("40", "75")):

        def edit(dataset, z, phase=phase):
            dataset.NominalPercentageOfCardiacPhase = float(phase)

        write_series(tmp_path / "study", hu + part, edit=edit, part=part)
    candidates, *_ = read_contents(tmp_path / "study")
    assert [candidate.phase for candidate in candidates] == ["40.0", "75.0"]
    with pytest.raises(
        UserError, match=r"2 series that fit; choose by --series=N: 1: CTA heart, phase 40.0, 24 x 64 x"
    ):
        read_study(tmp_path / "study")
    same(read_study(tmp_path / "study", "1"), hu)
    second = read_study(tmp_path / "study", "#75.0")
    same(second, hu + 1)
    assert checks(second.findings)["multi_phase"] == "note"
    assert any(f.seen == "the phase of the heart is stated: 75 %" for f in second.findings)


def test_copies_are_left_out_and_said(hu, tmp_path):
    paths = write_series(tmp_path / "study", hu)
    shutil.copy(paths[3], tmp_path / "study" / "copy of 3")
    study = read_study(tmp_path / "study")
    same(study, hu)
    assert checks(study.findings)["copies"] == "warn"


def test_padding_is_air_before_anything_is_checked(hu, tmp_path):
    padded = hu.copy()
    padded[:, :3] = -1000

    def pad(dataset, z):
        dataset.PixelRepresentation = 1
        dataset.PixelPaddingValue = -2000
        dataset.RescaleIntercept = "0"

    raw = hu.copy()
    raw[:, :3] = -2000
    write_series(tmp_path / "study", (raw.astype(np.int32) - 1024), edit=pad)
    study = read_study(tmp_path / "study")
    same(study, padded)
    share = next(f.seen for f in study.findings if f.check == "padding")
    assert share == "4.7 % of the pixels are padding and were set to air"  # 3 of 64 rows


def test_each_slice_has_its_own_rescale(hu, tmp_path):
    def edit(dataset, z):
        dataset.RescaleSlope, dataset.RescaleIntercept = ("0.5", "-1024") if z % 2 else ("1", "-1024")

    to_store = hu.astype(np.int32)
    to_store[1::2] = 2 * to_store[1::2] + 1024  # the writer adds 1024 more
    write_series(tmp_path / "study", to_store, edit=edit)
    study = read_study(tmp_path / "study")
    same(study, hu)
    assert checks(study.findings)["mixed_rescale"] == "note"


def remove(*names):
    def edit(dataset, z):
        for name in names:
            if name in dataset:
                delattr(dataset, name)

    return edit


def put(where=lambda z: True, **values):
    def edit(dataset, z):
        if where(z):
            for name, value in values.items():
                setattr(dataset, name, value)

    return edit


REFUSED = {
    "not CT": (put(Modality="MR"), "not_ct"),
    "no spacing": (remove("PixelSpacing"), "missing_spacing"),
    "spacing zero": (put(PixelSpacing=["0", "1"]), "missing_spacing"),
    "no position": (remove("ImagePositionPatient"), "missing_position"),
    "no orientation": (remove("ImageOrientationPatient"), "missing_orientation"),
    "skewed orientation": (put(ImageOrientationPatient=["1", "0", "0", "1", "0", "0"]), "contradictory_orientation"),
    "two orientations": (
        put(lambda z: z > 20, ImageOrientationPatient=["0", "1", "0", "0", "0", "1"]),
        "mixed_orientation",
    ),
    "two spacings": (put(lambda z: z == 3, PixelSpacing=["1", "1"]), "mixed_spacing"),
    "two frames of reference": (put(lambda z: z == 3, FrameOfReferenceUID="1.2.3"), "mixed_frame_of_reference"),
    "twice in a place": (put(lambda z: z == 3, ImagePositionPatient=["-60", "-75.5", "-200"]), "duplicate_positions"),
    "iodine map": (put(ImageType=["DERIVED", "PRIMARY", "IODINE"]), "not_hu_map"),
    "projection": (put(ImageType=["DERIVED", "SECONDARY", "MIP"]), "projection"),
}


@pytest.mark.parametrize(("edit", "check"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_volume_of_hu_is_refused_by_name(hu, tmp_path, edit, check):
    write_series(tmp_path / "study", hu, edit=edit)
    (candidate, *_), *_ = read_contents(tmp_path / "study")
    assert checks(candidate.findings)[check] == "refuse"
    with pytest.raises(UserError) as caught:
        read_study(tmp_path / "study")
    assert not any(secret in str(caught.value) for secret in PLANTED.values())


def test_a_lost_slice_a_tilt_and_uneven_steps(hu, tmp_path):
    paths = write_series(tmp_path / "gap", hu)
    paths[7].unlink()
    paths[8].unlink()
    with pytest.raises(UserError, match="missing: 2 slices in 1 place, the first after slice 7; send the whole"):
        read_study(tmp_path / "gap")

    def tilt(dataset, z):
        dataset.ImagePositionPatient[1] = float(dataset.ImagePositionPatient[1]) + 3 * z * np.tan(np.radians(12))

    write_series(tmp_path / "tilt", hu, edit=tilt)
    with pytest.raises(UserError, match=r"a gantry tilt of 12\.0 degrees; resample"):
        read_study(tmp_path / "tilt")

    def bend(dataset, z, by):
        dataset.ImagePositionPatient[2] = float(dataset.ImagePositionPatient[2]) + (by if z == 9 else 0)

    write_series(tmp_path / "uneven", hu, edit=lambda d, z: bend(d, z, 0.6))
    with pytest.raises(UserError, match=r"slices lie 2\.4 to 3\.6 mm apart"):
        read_study(tmp_path / "uneven")
    write_series(tmp_path / "nearly", hu, edit=lambda d, z: bend(d, z, 0.1))
    study = read_study(tmp_path / "nearly")
    assert checks(study.findings)["uneven_spacing"] == "warn"
    assert study.volume.spacing_mm[0] == pytest.approx(3)


def test_a_distance_that_is_told_otherwise_is_said_and_the_positions_count(hu, tmp_path):
    write_series(tmp_path / "study", hu, edit=put(SpacingBetweenSlices="1.5"))
    study = read_study(tmp_path / "study")
    same(study, hu)
    said = next(f.seen for f in study.findings if f.check == "contradictory_spacing")
    assert said == "SpacingBetweenSlices says 1.5 mm, the positions 3 mm; the positions count"
    write_series(tmp_path / "fine", hu, edit=put(SpacingBetweenSlices="-3"))  # nuclear medicine's sign
    assert "contradictory_spacing" not in checks(read_study(tmp_path / "fine").findings)


def test_values_that_are_no_hu(hu, tmp_path):
    write_series(tmp_path / "flat", np.zeros_like(hu))
    with pytest.raises(UserError, match="24 of 24 slices are constant"):
        read_study(tmp_path / "flat")
    write_series(tmp_path / "grey", np.clip(hu, 0, 255))
    with pytest.raises(UserError, match="not HU of a patient in air"):
        read_study(tmp_path / "grey")
    write_series(tmp_path / "plain", np.minimum(hu, 60), edit=remove("ContrastBolusAgent"))
    plain = read_study(tmp_path / "plain")
    assert checks(plain.findings)["no_contrast"] == "warn"
    write_series(tmp_path / "rich", hu, (5.0, 4.0, 5.0))  # the phantom's own
    assert "no_contrast" not in checks(read_study(tmp_path / "rich").findings)


def test_warnings_and_notes_of_the_header(hu, tmp_path):
    edit = put(
        PhotometricInterpretation="MONOCHROME1",
        ImageType=["DERIVED", "SECONDARY", "MPR"],
        SeriesDescription="Leopoldine mono 70 keV",
        TriggerTime=300.0,
        BodyPartExamined="ABDOMEN",
    )
    write_series(tmp_path / "study", hu, edit=edit)
    study = read_study(tmp_path / "study")
    found = checks(study.findings)
    assert {
        "monochrome1": "warn",
        "reformatted": "warn",
        "cardiac_phase": "note",
        "body_part": "warn",
    }.items() <= found.items()
    assert study.chosen.description == "(not shown: it names the patient)"
    same(study, hu)


@pytest.mark.parametrize(
    ("part", "said"),
    [("HEAD", True), ("Head Neck", True), ("KNEE", True), ("CHEST", False), ("ABD CHEST ABDOMEN", False), ("", False)]
    + [("HEART", False), ("PARTIALBODY", False), ("TSPINE", False), ("ZWICKNAGL", False)],
)
def test_a_header_that_names_another_part_of_the_body(hu, tmp_path, part, said):
    write_series(tmp_path / "study", hu, edit=put(BodyPartExamined=part))
    (candidate,) = read_contents(tmp_path / "study").candidates
    assert ("body_part" in checks(candidate.findings)) == said


def test_localizers_and_objects_without_pixels_are_left_out(hu, tmp_path):
    write_series(tmp_path / "study", hu)
    scout = put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="1.2.9")
    write_series(tmp_path / "study" / "scout", hu[:1], edit=scout, part=2)
    report = pydicom.dcmread(tmp_path / "study" / "CT1_0000.dcm")
    del report.PixelData, report.Rows, report.Columns
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"  # a dose report
    report.save_as(tmp_path / "study" / "report.dcm")
    study = read_study(tmp_path / "study")
    same(study, hu)
    assert {"localizers": "note", "no_pixels": "note"}.items() <= checks(study.findings).items()


def test_bits_above_the_stored_ones_are_dropped(hu, tmp_path):
    """Twelve of sixteen bits hold the value; the others may hold an overlay, and the sign is the twelfth's."""

    def signed(dataset, z):
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 1
        dataset.RescaleIntercept = "0"

    cut = np.clip(hu, -1000, 2000)
    twelve = (cut.astype(np.int32) & 0x0FFF) | 0x5000
    write_series(tmp_path / "study", twelve - 1024, edit=signed)
    same(read_study(tmp_path / "study"), cut)


def test_a_damaged_slice_is_named(hu, tmp_path):
    paths = write_series(tmp_path / "study", hu, syntax=uid.JPEG2000Lossless)
    content = paths[5].read_bytes()
    paths[5].write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="CT1_0005.dcm: "):
        read_study(tmp_path / "study")


def test_claims_of_absurd_size_are_refused_before_memory_is_asked_for(hu, tmp_path):
    def edit(dataset, z):
        dataset.NumberOfFrames = 90_000

    write_series(tmp_path / "frames", hu[:2], edit=edit)
    with pytest.raises(UserError):
        read_study(tmp_path / "frames")


@pytest.mark.parametrize("what", ["nothing", "empty", "text", "broken zip"])
def test_a_path_without_a_study_is_a_clear_line(tmp_path, what):
    path = tmp_path / "x.zip"
    if what == "empty":
        path = tmp_path / "folder"
        path.mkdir()
    elif what == "text":
        path.write_text("hello")
    elif what == "broken zip":
        path.write_bytes(b"PK\x03\x04" + b"\0" * 100 + b"PK\x05\x06" + b"\xff" * 18)
    with pytest.raises(UserError, match="x.zip|folder"):
        read_study(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Li^Bo", "Li Bo CTA"),
        ("Zwicknagl^Leopoldine", "CTA zwicknagls heart"),
        ("\u5c71\u7530^\u592a\u90ce", "\u5c71\u7530\u592a\u90ce CTA"),
        ("Nobody^Else", "CTA 17.04.1931"),
        ("Nobody^Else", "19310417 heart"),
        ("Nobody^Else", "Spital Hinterwald CTA"),
        ("Nobody^Else", "acc5550123"),
    ],
)
def test_a_description_that_tells_who_it_is_is_not_shown(hu, tmp_path, name, words):
    def edit(dataset, z):
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName, dataset.SeriesDescription = name, words

    write_series(tmp_path / "study", hu[:3], edit=edit)
    ((candidate,), *_) = read_contents(tmp_path / "study")
    assert candidate.description == "(not shown: it names the patient)"


def test_a_description_that_tells_nothing_is_shown(hu, tmp_path):
    edit = put(PatientName="van der CT^De", SeriesDescription="CTA de coeur 1.0 Bv40 75 %")
    write_series(tmp_path / "study", hu[:3], edit=edit)
    ((candidate,), *_) = read_contents(tmp_path / "study")
    assert candidate.description == "CTA de coeur 1.0 Bv40 75 %"


def test_slices_of_two_patients_are_no_series(hu, tmp_path):
    write_series(tmp_path / "study", hu, edit=put(lambda z: z % 2 == 1, PatientID="ID1"))
    ((candidate, *_), *_) = read_contents(tmp_path / "study")
    assert checks(candidate.findings)["mixed_patients"] == "refuse"
    write_series(tmp_path / "other", hu, edit=put(lambda z: z % 2 == 1, PatientID=""))
    ((candidate, *_), *_) = read_contents(tmp_path / "other")
    assert "mixed_patients" not in checks(candidate.findings), "an empty id is no other patient"


def test_a_zip_of_many_files_is_opened_once(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(300):
            archive.writestr(f"{number}.txt", "x")
    opened = []
    real = zipfile.ZipFile

    class Counted(real):
        def __init__(self, *words, **more):
            opened.append(words)
            super().__init__(*words, **more)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    candidates, found, *_ = read_contents(tmp_path / "many.zip")
    assert (candidates, len(opened)) == ([], 1)
    assert checks(found) == {"not_dicom": "note"}


def test_a_zip_whose_packing_is_damaged(hu, tmp_path):
    paths = write_series(tmp_path / "study", hu[:3])
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(paths[0], "a.dcm")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[60:400] = bytes(340)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.dcm in .*a\.zip cannot be unpacked"):
        read_contents(tmp_path / "a.zip")


def test_no_folder_is_too_deep(tmp_path):
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("a", dir_fd=place)
        below = os.open("a", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    try:
        with pytest.raises(UserError):
            read_contents(tmp_path)
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "a")], check=True)  # too deep for pytest's own cleaning


def test_names_that_are_no_text(hu, tmp_path, capfd):
    place = os.path.join(os.fsencode(tmp_path), b"M\xfcller")
    write_series(Path(os.fsdecode(place)), hu)
    assert main.main(["check", f"--input={os.fsdecode(place)}"]) == 0
    assert "fit for training slices" in capfd.readouterr().out
