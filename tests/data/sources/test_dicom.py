"""DICOM studies with masks of every kind into a dataset, from the command line; and pictures out and back."""

import csv
import json
import shutil
import stat

import numpy as np
import pytest
from PIL import Image

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.volume import Volume
from heartseg_jax.privacy import config_folder
from tests.dicom_writer import SERIES, axes
from tests.studies import SPACING, phantom, write_pictures, write_segmentation, write_study

ORIGIN = (-60.0, -75.5, -200.0)
NAMES = ("one", "two", "three")


@pytest.fixture
def source(tmp_path):
    for index, name in enumerate(NAMES):
        write_study(tmp_path / "source" / "images" / name, index)
    return tmp_path / "source"


def prepare(source, *words):
    flags = [f"--input={source}", f"--output={source.parent / 'data'}", "--overwrite"]
    return main.main(["prepare", "--source=dicom", *flags, *words])


def pictures(source, index, name, names=None):
    slices = sorted((source / "images" / name).iterdir())
    write_pictures(source / "masks" / name, phantom(index)[1], names or [f"{path.stem}.png" for path in slices])


def of_person(dataset, index):
    """The patient of a dataset whose images are those of phantom `index`."""
    hu = phantom(index)[0]
    return next(p for p in dataset.patients if np.array_equal(dataset.images(p), hu))


def same(source, labels=lambda index: phantom(index)[1]):
    dataset = read_dataset(source.parent / "data")
    assert len(dataset.patients) == 3
    for index in range(3):
        patient = of_person(dataset, index)
        np.testing.assert_array_equal(dataset.labels(patient), labels(index))
        np.testing.assert_allclose(patient.spacing_mm, SPACING)
        assert patient.contiguous
    return dataset


def without_255(index):
    return np.where(phantom(index)[1] == 255, 0, phantom(index)[1])


def test_pictures_called_like_the_slices_files(source):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    dataset = same(source)
    assert dataset.intensity == "HU"
    assert {p.splits[0] for p in dataset.patients} == {"train", "validation", "test"}
    assert all(p.merge == tuple(range(9)) for p in dataset.patients)


def test_pictures_called_by_instance(source):
    for index, name in enumerate(NAMES):
        pictures(source, index, name, [f"{SERIES}.9.{index}.1.{z + 1}.png" for z in range(24)])
    # One is stored upside down and says so.
    path, exif = source / "masks" / "two" / f"{SERIES}.9.1.1.5.png", Image.Exif()
    exif[0x0112] = 3
    with Image.open(path) as mask:
        mask.transpose(Image.Transpose.ROTATE_180).save(path, exif=exif)
    assert prepare(source) == 0
    assert [text for text in same(source).source["warnings"] if "1 mask with another EXIF orientation" in text]


def test_a_label_volume_in_another_order_of_axes(source):
    for index, name in enumerate(NAMES):
        labels = without_255(index)
        turned = Volume(labels[::-1, :, ::-1].transpose(1, 2, 0), (4.0, 5.0, 7.0), *placed(labels.shape))
        (source / "masks").mkdir(exist_ok=True)
        write_nifti(turned, source / "masks" / f"{name}.nii.gz")
    assert prepare(source) == 0
    same(source, without_255)


def placed(shape):
    """Origin and direction of the volume above: rows, then columns to the right, then slices downwards."""
    direction = axes()[:, [1, 2, 0]] * (1, -1, -1)
    far = np.array(ORIGIN) + axes() @ (np.array([shape[0] - 1, 0, shape[2] - 1]) * SPACING)
    return tuple(far), direction


def test_segmentations_beside_the_studies_and_inside(source):
    for index, name in enumerate(NAMES):
        slices = sorted((source / "images" / name).iterdir())
        place = source / "images" / name / "seg.dcm" if index == 1 else source / "masks" / f"{name}.dcm"
        write_segmentation(place, slices, without_255(index))
    assert prepare(source) == 0
    same(source, without_255)


def test_what_a_segmentation_does_not_hold_is_unknown(source):
    for index, name in enumerate(NAMES):
        slices = sorted((source / "images" / name).iterdir())
        write_segmentation(source / "masks" / f"{name}.dcm", slices, without_255(index), HEART.foreground[1:5])
    assert prepare(source) == 0
    assert {p.merge for p in read_dataset(source.parent / "data").patients} == {(0, 0, 2, 3, 4, 5, 0, 0, 0)}


def test_the_segmentation_tells_which_of_two_series_is_meant(tmp_path):
    place = tmp_path / "study"
    other = write_study(place / "other", 0)
    wanted = write_study(place / "wanted", 0, number=2)
    write_segmentation(place / "seg.dcm", wanted, without_255(0))
    assert prepare(place) == 0
    other[0].unlink()  # and not because the other one was missing
    assert len(read_dataset(tmp_path / "data").patients) == 1


def test_two_series_are_asked_for(source, capsys):
    write_study(source / "images" / "one" / "second", 0, number=2)
    for index, name in enumerate(NAMES):
        pictures(source, index, name, [f"{SERIES}.9.{index}.1.{z + 1}.png" for z in range(24)])
    assert prepare(source) == 2
    assert "holds 2 series that fit; choose by --series=N" in capsys.readouterr().err
    assert prepare(source, "--series=best") == 0
    same(source)


def test_slices_without_a_mask_are_left_out_not_called_background(source):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    for path in sorted((source / "masks" / "two").iterdir())[:20]:
        path.unlink()
    assert prepare(source) == 0
    dataset = read_dataset(source.parent / "data")
    short = next(p for p in dataset.patients if p.num_slices == 4)
    np.testing.assert_array_equal(dataset.images(short), phantom(1)[0][20:])
    np.testing.assert_array_equal(dataset.labels(short), phantom(1)[1][20:])
    assert short.contiguous
    assert dataset.source["cases"][short.id]["slices_without_labels"] == 20


def test_oblique_and_mirrored_slices_become_axial(source):
    direction = axes(7) * np.array([1, -1, 1])
    write_study(source / "images" / "two", 1, direction=direction)
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    dataset = read_dataset(source.parent / "data")
    hu, labels = phantom(1)
    patient = next(p for p in dataset.patients if np.array_equal(dataset.images(p), hu[:, ::-1]))
    np.testing.assert_array_equal(dataset.labels(patient), labels[:, ::-1])
    assert any("oblique by 7 degrees" in text for text in dataset.source["warnings"])


def test_two_studies_of_one_patient_are_never_parted(source):
    write_study(source / "images" / "three", 2, person="ID7741900")  # whose first study is "one"
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    dataset = read_dataset(source.parent / "data")
    first, second = of_person(dataset, 0), of_person(dataset, 2)
    assert second.id == f"{first.id}.2"
    assert second.who == first.who == first.id
    assert first.splits[0] == second.splits[0]
    assert any("1 person with several volumes" in text for text in dataset.source["warnings"])


def test_ids_that_an_archive_has_blanked_are_told_and_a_table_mends_it(source, tmp_path):
    for index, name in enumerate(NAMES):
        write_study(source / "images" / name, index, person="ANONYMOUS")
        pictures(source, index, name)
    assert prepare(source) == 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.split_kind == "block"
    assert any("all 3 studies have one PatientID" in text for text in dataset.source["warnings"])
    (tmp_path / "who.csv").write_text("file,patient\none,a\ntwo,b\nthree,a\n")
    assert prepare(source, f"--patients={tmp_path / 'who.csv'}") == 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.split_kind == "patient"
    assert of_person(dataset, 0).who == of_person(dataset, 2).who != of_person(dataset, 1).who


def test_without_a_patient_the_study_stands_for_one(source):
    def nameless(dataset, z):
        dataset.PatientID = dataset.PatientName = ""

    write_study(source / "images" / "two", 1, edit=nameless)
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    assert any("it counts as a patient" in t for t in read_dataset(source.parent / "data").source["warnings"])


def test_the_table_of_who_is_who_stays_with_the_user(source, capsys):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    assert not (config_folder() / "tables" / "data.csv").exists()
    assert prepare(source, "--keep_table") == 0
    path = config_folder() / "tables" / "data.csv"
    assert str(path) in capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open(newline="") as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    dataset = read_dataset(source.parent / "data")
    for index, name in enumerate(NAMES):
        assert rows[f"ID774190{index}"] == {
            "key": of_person(dataset, index).id,
            "patient": f"ID774190{index}",
            "source": name,
        }
    path.unlink()


def test_a_segmentation_of_one_phase_is_not_laid_over_another(tmp_path, capsys):
    slices = {}
    for number, phase in enumerate((40, 75), 1):

        def edit(dataset, z, phase=phase):
            dataset.SeriesInstanceUID = f"{SERIES}.8"
            dataset.FrameOfReferenceUID = f"{SERIES}.6"
            dataset.NominalPercentageOfCardiacPhase = float(phase)

        slices[phase] = write_study(tmp_path / "study" / str(phase), 0, edit=edit, number=number)
    write_segmentation(tmp_path / "study" / "seg.dcm", slices[75], without_255(0))
    assert prepare(tmp_path / "study") == 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.source["cases"][dataset.patients[0].id] == {"cardiac_phase": "75 %"}
    capsys.readouterr()
    assert prepare(tmp_path / "study", "--series=1") == 2
    assert "was drawn on another series, or another phase" in capsys.readouterr().err
    assert prepare(tmp_path / "study", "--series=2") == 0


def test_a_segmentation_in_a_folder_of_its_own_by_any_name(source):
    for index, name in enumerate(NAMES):
        slices = sorted((source / "images" / name).iterdir())
        write_segmentation(source / "masks" / name / "IM0001", slices, without_255(index))
    assert prepare(source) == 0
    same(source, without_255)


def shared_by_name(source):
    """Pictures of one study, which the others' slices are called like."""
    pictures(source, 0, "one")
    return source / "masks" / "one"


def shared_volume(source):
    write_nifti(Volume(without_255(0), SPACING, ORIGIN, axes()), source.parent / "one.nii.gz")
    return source.parent / "one.nii.gz"


@pytest.mark.parametrize(
    ("masks", "stated"),
    [
        (shared_by_name, "is of one by the export's table"),
        (shared_volume, "is one mask for 3 studies"),
    ],
)
def test_one_study_s_masks_are_not_laid_over_all(source, capsys, masks, stated):
    assert prepare(source, f"--masks={masks(source)}") == 2
    assert stated in capsys.readouterr().err
    assert not (source.parent / "data").exists()


def test_two_patients_with_the_same_uids_are_not_told_apart_by_the_table(source, tmp_path, capsys):
    def alike(dataset, z):
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = f"{SERIES}.8", f"{SERIES}.9.{z}"

    for index in range(2):
        write_study(source / "images" / NAMES[index], index, edit=alike)
    assert main.main(["prepare", "--source=dicom", f"--input={source}", f"--export_png={tmp_path / 'png'}"]) == 0
    (tmp_path / "png" / "images").rename(tmp_path / "png" / "masks")
    assert prepare(source, f"--masks={tmp_path / 'png' / 'masks'}") == 2
    assert "one and two have one SeriesInstanceUID" in capsys.readouterr().err


def test_slices_without_a_uid_of_their_own_are_told_apart_by_position(source, tmp_path):
    """As anonymisers leave them, who take the study's UID and the patient away, too."""

    def bare(dataset, z):
        dataset.SOPInstanceUID = f"{SERIES}.9"
        for name in ("PatientID", "PatientName", "StudyInstanceUID"):
            delattr(dataset, name)

    study = source / "images" / "one"
    write_study(study, 0, edit=bare)
    assert main.main(["prepare", "--source=dicom", f"--input={study}", f"--export_png={tmp_path / 'png'}"]) == 0
    name = sorted((tmp_path / "png" / "images").iterdir())[12].name
    write_pictures(tmp_path / "png" / "masks", phantom(0)[1][12:13], [name])
    assert prepare(study, f"--masks={tmp_path / 'png' / 'masks'}", f"--output={tmp_path / 'data'}") == 0
    dataset = read_dataset(tmp_path / "data")
    np.testing.assert_array_equal(dataset.images(0), phantom(0)[0][12:13])
    np.testing.assert_array_equal(dataset.labels(0), phantom(0)[1][12:13])
    assert any("it counts as a patient" in text for text in dataset.source["warnings"])


def test_a_real_series_goes_out_as_pictures(shared, tmp_path):
    study = shared / "data" / "dicom" / "siemens_series_j2k"
    assert main.main(["prepare", "--source=dicom", f"--input={study}", f"--export_png={tmp_path / 'png'}"]) == 0
    pictures = sorted((tmp_path / "png" / "images").iterdir())
    assert len(pictures) == 20
    assert Image.open(pictures[0]).size == (512, 512)


def test_pictures_called_like_slices_of_two_series_are_refused(source, capsys):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    write_study(source / "images" / "two" / "thin", 1, number=2)
    assert prepare(source, "--series=best") == 2
    assert "CT1_0000.png may be of several slices" in capsys.readouterr().err


def issued_once(source):
    """One of a patient's studies names who gave the id."""
    for index, name in enumerate(NAMES):
        edit = (lambda d, z: setattr(d, "IssuerOfPatientID", "A")) if index == 1 else None
        write_study(source / "images" / name, index, person="ID1", edit=edit)


def test_an_id_with_and_without_its_issuer_is_one_person(source):
    issued_once(source)
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    assert len({p.who for p in read_dataset(source.parent / "data").patients}) == 1


def test_one_name_and_birth_date_under_two_ids_is_told(source):
    def named(dataset, z):
        dataset.PatientName = "Other^Patient"

    write_study(source / "images" / "three", 2, edit=named)
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    dataset = read_dataset(source.parent / "data")
    keys = sorted(of_person(dataset, index).who for index in range(2))
    assert f"{keys[0]} and {keys[1]} have one name and date of birth" in dataset.source["warnings"][0]


def test_counts_of_patients_for_the_splits(source):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source, "--splits=2,0,1") == 0
    splits = sorted(p.splits[0] for p in read_dataset(source.parent / "data").patients)
    assert splits == ["test", "train", "train"]


def test_a_folder_called_like_a_note_is_a_study(source):
    (source / "images" / "two").rename(source / "images" / "Dr.md")
    (source / "images" / "readme.md").write_text("notes")
    for index, name in ((0, "one"), (1, "Dr.md"), (2, "three")):
        pictures(source, index, name)
    assert prepare(source) == 0
    same(source)


def test_pictures_go_out_and_painted_come_back(source, tmp_path, capsys):
    assert main.main(["prepare", "--source=dicom", f"--input={source}", f"--export_png={tmp_path / 'png'}"]) == 0
    said = capsys.readouterr().out
    assert "HU -200 to 600 as 0 to 255" in said
    assert said.count("24 slices, axial in the standard orientation") == 3
    about = json.loads((tmp_path / "png" / "export.json").read_text())
    assert about["window_hu"] == [-200, 600]
    with (tmp_path / "png" / "instances.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    for row in rows:
        index, z = int(row["series_uid"].split(".")[-2]), int(row["instance_uid"].rsplit(".", 1)[1]) - 1
        assert row["file"].endswith(f"_{z + 1:04d}.png")
        shown = np.asarray(Image.open(tmp_path / "png" / "images" / row["file"])).astype(int)
        # By hand: -200 HU is 0, 600 HU is 255, and what lies between in proportion.
        hu = phantom(index)[0][z].astype(float)
        np.testing.assert_array_equal(shown, np.rint(np.clip((hu + 200) / 800, 0, 1) * 255))
        write_pictures(tmp_path / "png" / "masks", phantom(index)[1][z : z + 1], [row["file"]])
    assert prepare(source, f"--masks={tmp_path / 'png' / 'masks'}") == 0
    same(source)
    # Saved again by a spreadsheet, with what the operating system leaves behind beside the studies.
    table = tmp_path / "png" / "instances.csv"
    for place in (source / "images", tmp_path / "png" / "masks"):
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
            (place / name).write_bytes(b"x")
    plain = table.read_text()
    table.write_bytes(plain.replace(",", ";").encode("utf-16"))
    assert prepare(source, f"--masks={tmp_path / 'png' / 'masks'}") == 0
    same(source)
    table.write_text(plain + plain.splitlines()[1].replace("_0001.png", "_0002.png") + "\n")
    assert prepare(source, f"--masks={tmp_path / 'png' / 'masks'}") == 2
    assert "two rows" in capsys.readouterr().err
    table.write_text(plain)
    # The pictures alone are a source too, and know no more of the patient.
    words = [f"--input={tmp_path / 'png'}", f"--output={tmp_path / 'eight'}"]
    assert main.main(["prepare", "--source=png_pairs", *words]) == 0
    dataset = read_dataset(tmp_path / "eight")
    assert {p.id for p in dataset.patients} == {study["patient"] for study in about["studies"]}


def test_the_window_of_the_pictures_is_the_configs(source, tmp_path):
    words = ["--config=configs/scratch.py", "--config.data.window_hu=0,100", f"--export_png={tmp_path / 'png'}"]
    assert main.main(["prepare", "--source=dicom", f"--input={source / 'images' / 'one'}", *words]) == 0
    first = sorted((tmp_path / "png" / "images").iterdir())[3]
    expected = np.rint(np.clip(phantom(0)[0][3] / 100, 0, 1) * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(first)), expected)


def test_pictures_of_turned_slices_say_how_to_turn_them(source, tmp_path, capsys):
    """Rows towards Anterior: what is painted comes back all the same, and png_pairs is given the orientation."""
    write_study(source / "images" / "one", 0, direction=axes() * np.array([1, -1, 1]))
    words = [f"--input={source / 'images' / 'one'}", f"--export_png={tmp_path / 'png'}"]
    assert main.main(["prepare", "--source=dicom", *words]) == 0
    assert "--orientation=flip-rows" in capsys.readouterr().out


def test_an_export_is_not_laid_over_other_files(source, tmp_path, capsys):
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "mine.txt").write_text("x")
    assert main.main(["prepare", "--source=dicom", f"--input={source}", f"--export_png={tmp_path / 'png'}"]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "png").iterdir()] == ["mine.txt"]


def no_masks(source):
    shutil.rmtree(source / "masks" / "two")


def numbers_alone(source):
    shutil.rmtree(source / "masks" / "two")
    pictures(source, 1, "two", [f"{z:03d}.png" for z in range(24)])


def masks_of_nobody(source):
    shutil.copytree(source / "masks" / "two", source / "masks" / "four")


def wrong_size(source):
    path = sorted((source / "masks" / "two").iterdir())[5]
    Image.open(path).resize((40, 40)).save(path)


def off_palette(source):
    path = sorted((source / "masks" / "two").iterdir())[12]
    image = np.array(Image.open(path))
    image[20:40, 20:40] = (10, 200, 90)
    Image.fromarray(image).save(path)


def not_ct(source):
    write_study(source / "images" / "two", 1, edit=lambda dataset, z: setattr(dataset, "Modality", "MR"))


def lost_slice(source):
    (source / "images" / "two" / "CT1_0007.dcm").unlink()
    (source / "masks" / "two" / "CT1_0007.png").unlink()


def empty_study(source):
    shutil.rmtree(source / "images" / "two")
    (source / "images" / "two").mkdir()


def two_patients_in_one(source):
    write_study(source / "images" / "two", 1, edit=lambda d, z: setattr(d, "PatientID", f"ID{z % 2}"))


def pictures_and_a_segmentation(source):
    slices = sorted((source / "images" / "two").iterdir())
    write_segmentation(source / "masks" / "two" / "seg.dcm", slices, without_255(1))


def odd_trigger_time(source):
    write_study(source / "images" / "two", 1, edit=lambda d, z: setattr(d, "TriggerTime", ["10", "20"]))
    (source / "images" / "two" / "CT1_0003.dcm").unlink()


def two_of_a_name(source):
    (source / "masks" / "two.dcm").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "stated"),
    [
        (no_masks, "two has no masks: put colour PNGs"),
        (numbers_alone, "000.png is of no slice that is read: name masks like the slices' files, by SOPInstanceUID"),
        (masks_of_nobody, "no study beside the masks four"),
        (wrong_size, "is 40 x 40 pixels, its slice 64 x 48"),
        (off_palette, "masks hold 1 colours without a meaning"),
        (not_ct, "two: the series is MR, not CT; choose a CT series"),
        (lost_slice, "two: missing: 1 slice in 1 place"),
        (empty_study, "two holds no file"),
        (two_of_a_name, "masks holds two twice: remove one"),
        (two_patients_in_one, "two: the slices are of several patients"),
        (pictures_and_a_segmentation, "holds pictures and a segmentation"),
        (odd_trigger_time, "two: missing: 1 slice"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_dataset(source, capsys, damage, stated):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    damage(source)
    assert prepare(source) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert stated in lines[-1]
    assert not (source.parent / "data").exists()


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        (["--source=dicom"], "prepare --source=dicom needs --input=DIR"),
        (["--source=dicom", "--input=nowhere", "--output=x"], "there is nothing at nowhere"),
        (["--source=dicom", "--input=nowhere", "--masks=none", "--output=x"], "there are no masks at none"),
        (["--source=png_pairs", "--input=x", "--series=1", "--output=x"], "--series is not used with"),
        (["--source=mmwhs", "--input=x", "--repair", "--output=x"], "--repair is not used with"),
        (["--source=dicom", "--input=x", "--export_png=y", "--masks=z"], "--masks is not used with --export_png"),
        (["--source=dicom", "--input={}", "--max_off_palette=7", "--output=x"], "--max_off_palette"),
        (["--source=dicom", "--input={}", "--series=\u00b2", "--output=x"], "names 0 of the series"),
        (["--source=dicom", "--input={}", "--series=" + "9" * 5000, "--output=x"], "names 0 of the series"),
        (["--source=dicom", "--input={}", "--output=."], "is the folder that you are in, or above it"),
        (["--source=png_pairs", "--input=x", "--export_png=y"], "--export_png is not used with --source=png_pairs"),
        (["--source=dicm", "--input=x", "--output=x"], "did you mean dicom?"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, words, stated):
    write_study(tmp_path / "study", 0)
    words = [word.replace("{}", str(tmp_path / "study")) for word in words]
    words = [*words, "--output=x"] if len(words) == 1 else words
    assert main.main(["prepare", *words]) == 2
    assert stated in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_trigger_time_of_two_values_tells_no_phase(source):
    write_study(source / "images" / "two", 1, edit=lambda d, z: setattr(d, "TriggerTime", ["10", "20"]))
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    same(source)


def test_a_link_to_a_dataset_stays_a_link(source, tmp_path):
    for index, name in enumerate(NAMES):
        pictures(source, index, name)
    assert prepare(source) == 0
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert prepare(source, f"--output={tmp_path / 'link'}") == 0
    assert (tmp_path / "link").is_symlink()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
