"""MM-WHS and TotalSegmentator in their own layouts, from the command line: what is known, and what is not."""

import shutil

import nibabel
import numpy as np
import pytest

import main
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.imaging.nifti import read_nifti, write_nifti
from heartseg_jax.imaging.orientation import patient_axial
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import Volume

SPEC = PhantomSpec((40, 64, 56), (5.0, 4.0, 4.5))
VALUES = {1: 820, 2: 420, 3: 500, 4: 550, 5: 600, 6: 820, 7: 850, 8: 550}
"""MM-WHS: the aorta is undivided, and the right atrium holds the cavae."""
FILES = {
    "heart_atrium_left": 2,
    "heart_ventricle_left": 3,
    "heart_atrium_right": 4,
    "heart_ventricle_right": 5,
    "pulmonary_artery": 7,
}


@pytest.fixture(scope="module")
def phantoms():
    return [generate(3, k, SPEC) for k in range(3)]


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(Volume(values, SPEC.spacing_mm), path)


def prepare(kind, source, output, *words):
    flags = [f"--input={source}", f"--output={output}", "--overwrite"]
    return main.main(["prepare", f"--source={kind}", *flags, *words])


def heart(labels, *values):
    return np.where(np.isin(labels, values), labels, 0)


# MM-WHS


def mmwhs(place, phantoms, change=lambda labels: labels):
    for k, phantom in enumerate(phantoms):
        labels = change(phantom.labels)
        values = np.vectorize(lambda v: VALUES.get(v, 205 if v == 255 else 0))(labels).astype(np.int16)
        if k == 0:
            values[values == 420] = np.where(np.arange((values == 420).sum()) < 5, 421, 420)
        write(place / "ct_train" / f"ct_train_100{k}_image.nii.gz", phantom.volume.voxels)
        write(place / "ct_train" / f"ct_train_100{k}_label.nii.gz", values)
    write(place / "mr_train" / "mr_train_1001_image.nii.gz", phantoms[0].volume.voxels)
    write(place / "mr_train" / "mr_train_1001_label.nii.gz", values)
    write(place / "ct_test" / "ct_test_2001_image.nii.gz", phantoms[0].volume.voxels)


def test_mmwhs(tmp_path, phantoms):
    mmwhs(tmp_path / "in", phantoms)
    write(tmp_path / "in" / "ct_train" / "average.nii.gz", phantoms[0].labels)
    (tmp_path / "in" / "ct_train" / "ct_train_1009_image.nrrd").write_bytes(b"NRRD")
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    (warning,) = [text for text in dataset.source["warnings"] if "not read" in text]
    assert "1 .nrrd" in warning
    assert "1 NIfTI files of other names" in warning
    assert [p.id for p in dataset.patients] == ["ct_train_1000", "ct_train_1001", "ct_train_1002"]
    for patient, phantom in zip(dataset.patients, phantoms, strict=True):
        labels = np.asarray(dataset.labels(patient))
        np.testing.assert_array_equal(heart(labels, 2, 3, 5, 7), heart(phantom.labels, 2, 3, 5, 7))
        np.testing.assert_array_equal(labels == 4, np.isin(phantom.labels, (4, 8)))
        np.testing.assert_array_equal(np.isin(labels, (1, 6)), np.isin(phantom.labels, (1, 6)))
        aorta = np.isin(labels, (1, 6))
        assert (labels == phantom.labels)[aorta].mean() > 0.95
        assert patient.merge == (0, 1, 2, 3, 4, 5, 6, 7, 4)
        assert dataset.source["cases"][patient.id] == {"aorta": "divided at the middle of the arch"}
    assert "1 image of magnetic resonance left out" in dataset.source["warnings"]
    assert "1 image without labels left out" in dataset.source["warnings"]


def test_two_images_of_one_name_are_refused(tmp_path, phantoms, capsys):
    mmwhs(tmp_path / "in", phantoms)
    shutil.copytree(tmp_path / "in" / "ct_train", tmp_path / "in" / "copy")
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 2
    assert "have the same name" in capsys.readouterr().err


def test_mmwhs_with_the_ascending_aorta_alone_says_nothing_of_the_descending_one(tmp_path, phantoms):
    mmwhs(tmp_path / "in", phantoms, lambda labels: np.where(labels == 6, 0, labels))
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    for patient, phantom in zip(dataset.patients, phantoms, strict=True):
        assert patient.merge == (0, 1, 2, 3, 4, 5, 0, 7, 4)
        np.testing.assert_array_equal(dataset.labels(patient) == 1, phantom.labels == 1)


def test_mmwhs_with_a_limb_that_is_not_known_counts_both_as_one(tmp_path, phantoms):
    mmwhs(tmp_path / "in", phantoms, lambda labels: np.where(labels == 1, 0, labels))
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 0
    for patient in read_dataset(tmp_path / "data").patients:
        assert patient.merge == (0, 1, 2, 3, 4, 5, 1, 7, 4)


def test_mmwhs_with_two_limbs_side_by_side_decides_nothing(tmp_path, phantoms):
    def tubes(labels):
        labels = np.where(np.isin(labels, (1, 6)), 0, labels)
        labels[5:35, 30:36, 20:26] = labels[5:35, 30:36, 44:50] = 1
        labels[10:12, 30:36, 26:28] = 3  # the left ventricle touches one of them
        return labels

    mmwhs(tmp_path / "in", phantoms, tubes)
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    for patient in dataset.patients:
        assert patient.merge == (0, 1, 2, 3, 4, 5, 1, 7, 4)
        assert "clearly in front" in dataset.source["cases"][patient.id]["aorta"]


def test_names_in_capitals(tmp_path, phantoms):
    mmwhs(tmp_path / "in", phantoms)
    place = tmp_path / "in" / "ct_train"
    for path in list(place.iterdir()):
        if "1001" in path.name:
            path.rename(place / path.name.replace("_image.nii.gz", "_IMAGE.NII.GZ").replace("_label.nii", "_Label.nii"))
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 0
    assert len(read_dataset(tmp_path / "data").patients) == 3


def test_a_value_that_mmwhs_does_not_have(tmp_path, phantoms, capsys):
    mmwhs(tmp_path / "in", phantoms)
    labels = phantoms[1].labels.astype(np.int16)
    write(tmp_path / "in" / "ct_train" / "ct_train_1001_label.nii.gz", labels)
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 2
    assert "ct_train_1001_label.nii.gz has values without a meaning: 1, 2, 3" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "in" / "ct_train")
    assert prepare("mmwhs", tmp_path / "in", tmp_path / "data") == 2
    assert "none of the 2 images" in capsys.readouterr().err
    assert prepare("mmwhs", tmp_path / "nowhere", tmp_path / "data") == 2
    assert "holds no NAME_image.nii.gz" in capsys.readouterr().err


# TotalSegmentator


def subject(place, name, phantom, files, folder="segmentations"):
    write(place / name / "ct.nii.gz", phantom.volume.voxels)
    task(place / name / folder, phantom, files)


def task(place, phantom, files):
    for file, labels in files.items():
        write(place / f"{file}.nii.gz", np.isin(phantom.labels, labels).astype(np.uint8))


def test_version_1_has_chambers_and_half_a_cava(tmp_path, phantoms):
    files = {**FILES, "aorta": (1, 6), "inferior_vena_cava": 8, "liver": 99, "heart_myocardium": 98}
    for k, phantom in enumerate(phantoms):
        subject(tmp_path / "in", f"s001{k}", phantom, files)
    (tmp_path / "in" / "s0010" / "segmentations" / "superior_vena_cava.nrrd").write_bytes(b"NRRD")
    (tmp_path / "in" / "s0010" / "statistics.json").write_text("{}")
    (tmp_path / "in" / "s0099").mkdir()
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    (warning,) = [text for text in dataset.source["warnings"] if "not read" in text]
    assert warning.startswith("2 files in the input not read: ")
    assert "1 .nrrd" in warning
    for patient, phantom in zip(dataset.patients, phantoms, strict=True):
        assert patient.merge == (0, 1, 2, 3, 4, 5, 6, 7, 0), "the superior cava has no file: unknown"
        labels = np.asarray(dataset.labels(patient))
        np.testing.assert_array_equal(heart(labels, 2, 3, 4, 5, 7), heart(phantom.labels, 2, 3, 4, 5, 7))
        assert not (labels == 8).any()
    assert any("one vena cava has a file" in text for text in dataset.source["warnings"])


def test_version_2_knows_vessels_alone_and_a_joined_task_adds_the_chambers(tmp_path, phantoms):
    total = {"aorta": (1, 6), "superior_vena_cava": 8, "inferior_vena_cava": 99, "pulmonary_vein": 255}
    for k, phantom in enumerate(phantoms):
        subject(tmp_path / "in", f"s001{k}", phantom, total)
        task(tmp_path / "chambers" / f"s001{k}", phantom, {**FILES, "aorta": 1})
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    alone = read_dataset(tmp_path / "data")
    assert {p.merge for p in alone.patients} == {(0, 1, 0, 0, 0, 0, 6, 0, 8)}
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data", f"--join={tmp_path / 'chambers'}") == 0
    joined = read_dataset(tmp_path / "data")
    assert "3 files in two folders: the first counts" in joined.source["warnings"]
    for patient, phantom in zip(joined.patients, phantoms, strict=True):
        assert patient.merge == tuple(range(9))
        labels = np.asarray(joined.labels(patient))
        np.testing.assert_array_equal(heart(labels, 2, 3, 4, 5, 7, 8), heart(phantom.labels, 2, 3, 4, 5, 7, 8))
        assert np.isin(labels, (1, 6)).sum() == np.isin(phantom.labels, (1, 6)).sum(), "the total task's aorta counts"
        # The pulmonary vein is no artery, and where the atrium begins is a matter of taste.
        np.testing.assert_array_equal(labels == 255, phantom.labels == 255)


def test_an_appendage_belongs_to_its_atrium_and_is_none_alone(tmp_path, phantoms):
    for k, files in enumerate(({"atrial_appendage_left": 5, "heart_atrium_left": 2}, {"atrial_appendage_left": 5})):
        subject(tmp_path / "in", f"s{k}", phantoms[k], {**files, "heart_ventricle_left": 3})
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    assert [p.merge[2] for p in dataset.patients] == [2, 0]
    np.testing.assert_array_equal(dataset.labels(0) == 2, np.isin(phantoms[0].labels, (2, 5)))
    assert not (dataset.labels(1) == 2).any()


def test_a_border_that_two_tasks_claim_is_nobodys(tmp_path, phantoms):
    phantom = phantoms[0]
    subject(tmp_path / "in", "s1", phantom, {"heart_atrium_left": (2, 3), "heart_ventricle_left": 3})
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    np.testing.assert_array_equal(dataset.labels(0) == 255, phantom.labels == 3)
    assert any("in two structures" in text for text in dataset.source["warnings"])


def test_subjects_without_a_heart_and_without_hu_are_left_out(tmp_path, phantoms):
    for k, phantom in enumerate(phantoms):
        subject(tmp_path / "in", f"s001{k}", phantom, FILES)
    subject(tmp_path / "in", "s0020", phantoms[0], dict.fromkeys(FILES, 99))
    write(tmp_path / "in" / "s0021" / "ct.nii.gz", np.clip(phantoms[0].volume.voxels, 0, 255))
    task(tmp_path / "in" / "s0021", phantoms[0], FILES)
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    assert [p.id for p in dataset.patients] == ["s0010", "s0011", "s0012"]
    assert "1 of 5 were left out: none of the structures is in them" in dataset.source["warnings"]
    assert any(text.startswith("s0021: left out: 99 % of the values") for text in dataset.source["warnings"])


def test_those_who_are_left_are_drawn_into_the_splits(tmp_path, phantoms):
    for k, phantom in enumerate(phantoms):
        subject(tmp_path / "in", f"s{k}", phantom, FILES)
        subject(tmp_path / "in", f"t{k}", phantom, FILES)
        write(tmp_path / "in" / f"t{k}" / "ct.nii.gz", np.clip(phantom.volume.voxels, 0, 255))
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    assert sorted(p.splits[0] for p in dataset.patients) == ["test", "train", "validation"]
    for k in (1, 2):
        shutil.rmtree(tmp_path / "in" / f"s{k}")
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    alone = read_dataset(tmp_path / "data")
    assert alone.split_kind == "block"
    assert {"train", "validation", "test"} <= set(alone.patients[0].splits)


@pytest.mark.parametrize("value", [-5, 255])
def test_a_file_that_is_no_mask_is_refused(tmp_path, phantoms, capsys, value):
    subject(tmp_path / "in", "s1", phantoms[0], FILES)
    odd = np.where(phantoms[0].labels == 3, value, 0).astype(np.int16)
    write(tmp_path / "in" / "s1" / "segmentations" / "heart_ventricle_left.nii.gz", odd)
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 2
    assert "heart_ventricle_left.nii.gz holds values from" in capsys.readouterr().err


def test_a_real_subject(shared, tmp_path):
    place = shared / "data" / "heart_cta_volume"
    (tmp_path / "in" / "s0011" / "segmentations").mkdir(parents=True)
    shutil.copy(place / "ct.nii.gz", tmp_path / "in" / "s0011")
    shutil.copy(place / "pulmonary_artery.nii.gz", tmp_path / "in" / "s0011" / "segmentations")
    shutil.copy(place / "heart.nii.gz", tmp_path / "in" / "s0011" / "segmentations")  # no structure of ours
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.patients[0].merge == (0, 0, 0, 0, 0, 0, 0, 7, 0)
    truth = np.asarray(nibabel.load(place / "pulmonary_artery.nii.gz").dataobj) > 0
    assert (dataset.labels(0) == 7).sum() == truth.sum() > 0
    axial, _ = patient_axial(read_nifti(place / "ct.nii.gz"))
    kept = axial.voxels >= -1100
    np.testing.assert_array_equal(np.asarray(dataset.images(0))[kept], axial.voxels[kept])


@pytest.mark.parametrize(
    ("words", "stated"),
    [
        (["--input={in}/nowhere"], "there is no folder"),
        (["--input={in}/s1"], "holds no SUBJECT/ct.nii.gz"),
        (["--input={in}", "--join={in}/s1"], "has no folder of any of the 1 subjects"),
        (["--input={in}"], "no file in"),
    ],
)
def test_what_is_no_collection_is_one_line(tmp_path, phantoms, capsys, words, stated):
    subject(tmp_path / "in", "s1", phantoms[0], {"liver": 99})
    words = [word.replace("{in}", str(tmp_path / "in")) for word in words]
    assert main.main(["prepare", "--source=totalsegmentator", *words, f"--output={tmp_path / 'data'}"]) == 2
    assert stated in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_structure_on_another_grid_is_named(tmp_path, phantoms, capsys):
    subject(tmp_path / "in", "s1", phantoms[0], FILES)
    write(tmp_path / "in" / "s1" / "segmentations" / "aorta.nii.gz", np.ones((40, 64, 57), np.uint8))
    assert prepare("totalsegmentator", tmp_path / "in", tmp_path / "data") == 2
    assert "aorta.nii.gz is not on the grid of its image: 40 x 64 x 57" in capsys.readouterr().err
