"""nnU-Net's raw folders, the Decathlon's, and TotalSegmentator's results in one file, from the command line."""

import json

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

import main
from heartseg_jax.data.dataset.write import read_dataset
from heartseg_jax.imaging.nifti import write_nifti
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate
from heartseg_jax.imaging.volume import Volume

SPEC = PhantomSpec((24, 40, 36), (8.0, 6.0, 6.5))
VALUES = {2: 1, 3: 2, 255: 9}
"""By the project's label: atrium, ventricle, and what is to be ignored; 3 is a liver."""
V1 = {"0": "background", "1": "Left Atrium", "2": "heart_ventricle_left", "3": "liver", "9": "ignore"}
V2 = {"background": 0, "left_atrium": 1, "LV": [2], "liver": 3, "whole": [1, 2], "ignore": 9}


@pytest.fixture(scope="module")
def phantoms():
    return [generate(3, k, SPEC) for k in range(3)]


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(Volume(values, SPEC.spacing_mm), path)


def stored(labels):
    values = np.zeros(labels.shape, np.uint8)
    for label, value in VALUES.items():
        values[labels == label] = value
    values[0, :3, :3] = 3
    return values


def folder(place, phantoms, labels=V2, image="{}_0000", fields=None):
    for k, phantom in enumerate(phantoms):
        write(place / "imagesTr" / f"{image.format(f'case_{k}')}.nii.gz", phantom.volume.voxels)
        write(place / "labelsTr" / f"case_{k}.nii.gz", stored(phantom.labels))
    description = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **(fields or {})}
    (place / "dataset.json").write_text(json.dumps(description))
    return place


def listed(place, phantoms, labels=V1):
    training = [{"image": f"./imagesTr/case_{k}.nii.gz", "label": f"./labelsTr/case_{k}.nii.gz"} for k in range(3)]
    return folder(
        place, phantoms, labels, "{}", {"training": training, "modality": {"0": "CT"}, "channel_names": {"0": "CT"}}
    )


def prepare(kind, source, *words):
    flags = [f"--input={source}", f"--output={source.parent / 'data'}", "--overwrite"]
    return main.main(["prepare", f"--source={kind}", *flags, *words])


def check(place, phantoms):
    dataset = read_dataset(place)
    assert [p.id for p in dataset.patients] == ["case_0", "case_1", "case_2"]
    for patient, phantom in zip(dataset.patients, phantoms, strict=True):
        expected = np.where(np.isin(phantom.labels, [*VALUES]), phantom.labels, 0)
        expected[0, :3, :3] = 0
        np.testing.assert_array_equal(dataset.labels(patient), expected)
        assert patient.merge == (0, 0, 2, 3, 0, 0, 0, 0, 0)
    assert any("1 label of other anatomy" in text for text in dataset.source["warnings"])


@pytest.mark.parametrize("labels", [V1, V2])
def test_nnunet(tmp_path, phantoms, labels):
    assert prepare("nnunet", folder(tmp_path / "in", phantoms, labels)) == 0
    check(tmp_path / "data", phantoms)


def test_decathlon(tmp_path, phantoms):
    source = listed(tmp_path / "in", phantoms)
    write(source / "imagesTr" / "case_7.nii.gz", phantoms[0].volume.voxels)
    assert prepare("decathlon", source) == 0
    check(tmp_path / "data", phantoms)
    assert any("that dataset.json does not list" in text for text in read_dataset(tmp_path / "data").source["warnings"])


def test_names_that_are_not_known_are_given(tmp_path, phantoms):
    (tmp_path / "map.json").write_text(json.dumps({"corazon": "left_atrium", "2": "LV"}))
    source = folder(tmp_path / "in", phantoms, {"background": 0, "corazon": 1, "y": 2, "liver": 3, "ignore": 9})
    assert prepare("nnunet", source, f"--labels={tmp_path / 'map.json'}") == 0
    check(tmp_path / "data", phantoms)


def no_json(place):
    (place / "dataset.json").unlink()


def second_channel(place):
    write(place / "imagesTr" / "case_0_0001.nii.gz", np.zeros(SPEC.shape, np.int16))


def no_label(place):
    (place / "labelsTr" / "case_1.nii.gz").unlink()


def no_image(place):
    (place / "imagesTr" / "case_1_0000.nii.gz").unlink()


def described(**fields):
    def change(place):
        path = place / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def broken(place):
    (place / "dataset.json").write_text('{"labels": ')


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_json, "dataset.json"),
        (broken, "dataset.json"),
        (second_channel, "case_0_0001.nii.gz is of another channel"),
        (no_label, "no case_1.nii.gz in labelsTr"),
        (no_image, "no image in imagesTr for case_1"),
        (described(file_ending=".mha"), ".mha"),
        (described(channel_names={"0": "CT", "1": "PET"}), "one channel"),
        (described(labels={"background": 0, "leber": 1}), "none of the 2 labels"),
        (described(labels={"background": 0, "LA": 1, "LV": 1}), "the value 1 two names"),
        (described(labels={"background": 0, "LA": "one"}), "no whole number"),
        (described(labels={"background": 0, "LA": 1}), "values without a meaning: 2, 3, 9"),
        (described(labels=[1, 2]), "no labels"),
    ],
)
def test_what_nnunet_refuses(tmp_path, phantoms, capsys, change, words):
    change(folder(tmp_path / "in", phantoms))
    assert prepare("nnunet", tmp_path / "in") == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (described(training=[]), "--source=nnunet"),
        (described(training=[{"image": "a"}]), "without an image and a label"),
        (described(training=[{"image": "../../a.nii.gz", "label": "b.nii.gz"}]), "outside of its folder"),
        (described(training=[{"image": "imagesTr/x.nii.gz", "label": "labelsTr/x.nii.gz"}]), "x.nii.gz, which"),
    ],
)
def test_what_the_decathlon_refuses(tmp_path, phantoms, capsys, change, words):
    change(listed(tmp_path / "in", phantoms))
    assert prepare("decathlon", tmp_path / "in") == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]


# TotalSegmentator's results in one file


def ml(path, phantom, names, table=True):
    """Write labels as the values of `names` {value: (name, labels)}, with the names in the header as XML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(phantom.labels.shape, np.uint8)
    for value, (_, labels) in names.items():
        values[np.isin(phantom.labels, labels)] = value
    write(path, values)
    if table:
        rows = "".join(
            f'<Label Key="{v}" Red="1" Alpha="1"><![CDATA[{name}]]></Label>' for v, (name, _) in names.items()
        )
        xml = f"<CaretExtension><VolumeInformation><LabelTable>{rows}</LabelTable></VolumeInformation></CaretExtension>"
        image = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        image.header.extensions.append(Nifti1Extension(0, f'<?xml version="1.0" encoding="UTF-8"?> {xml}'.encode()))
        image.to_filename(path)


TOTAL = {
    52: ("aorta", (1, 6)),
    5: ("liver", (99,)),
    62: ("superior_vena_cava", (8,)),
    63: ("inferior_vena_cava", (99,)),
}
CHAMBERS = {2: ("heart_atrium_left", (2,)), 3: ("heart_ventricle_left", (3,)), 7: ("pulmonary_artery", (7,))}


def test_results_in_one_file_and_a_joined_task(tmp_path, phantoms):
    for k, phantom in enumerate(phantoms):
        write(tmp_path / "in" / f"s{k}" / "ct.nii.gz", phantom.volume.voxels)
        ml(tmp_path / "in" / f"s{k}" / "segmentations.nii.gz", phantom, TOTAL)
        joined = tmp_path / "chambers" / (f"s{k}.nii.gz" if k else f"s{k}/chambers.nii.gz")
        ml(joined, phantom, CHAMBERS)
    assert prepare("totalsegmentator_ml", tmp_path / "in", f"--join={tmp_path / 'chambers'}") == 0
    dataset = read_dataset(tmp_path / "data")
    for patient, phantom in zip(dataset.patients, phantoms, strict=True):
        labels = np.asarray(dataset.labels(patient))
        for label in (2, 3, 7, 8):
            np.testing.assert_array_equal(labels == label, phantom.labels == label)
        np.testing.assert_array_equal(np.isin(labels, (1, 6)), np.isin(phantom.labels, (1, 6)))
        assert patient.merge[2:5] == (2, 3, 0)
        assert patient.merge[7:] == (7, 8)


def test_without_names_the_values_must_be_given(tmp_path, phantoms, capsys):
    write(tmp_path / "in" / "s0" / "ct.nii.gz", phantoms[0].volume.voxels)
    ml(tmp_path / "in" / "s0" / "all.nii.gz", phantoms[0], CHAMBERS, table=False)
    assert prepare("totalsegmentator_ml", tmp_path / "in") == 2
    assert "--labels=map.json" in capsys.readouterr().err
    (tmp_path / "map.json").write_text(json.dumps({"2": "left_atrium", "3": "LV", "7": "background"}))
    assert prepare("totalsegmentator_ml", tmp_path / "in", f"--labels={tmp_path / 'map.json'}") == 0
    dataset = read_dataset(tmp_path / "data")
    np.testing.assert_array_equal(
        dataset.labels(0), np.where(np.isin(phantoms[0].labels, (2, 3)), phantoms[0].labels, 0)
    )


def mapped(tmp_path, **meanings):
    (tmp_path / "map.json").write_text(json.dumps({value[1:]: name for value, name in meanings.items()}))
    return f"--labels={tmp_path / 'map.json'}"


def test_a_value_that_nothing_names_is_refused(tmp_path, phantoms, capsys):
    subject = tmp_path / "in" / "s0"
    write(subject / "ct.nii.gz", phantoms[0].volume.voxels)
    ml(subject / "all.nii.gz", phantoms[0], CHAMBERS, table=False)
    assert prepare("totalsegmentator_ml", tmp_path / "in", mapped(tmp_path, _2="left_atrium", _3="LV")) == 2
    assert "all.nii.gz has values without a meaning: 7; " in capsys.readouterr().err


def test_another_scan_beside_the_ct_is_no_label_map(tmp_path, phantoms, capsys):
    subject = tmp_path / "in" / "s0"
    write(subject / "ct.nii.gz", phantoms[0].volume.voxels)
    write(subject / "ct_denoised.nii.gz", phantoms[0].volume.voxels)
    ml(subject / "segmentations.nii.gz", phantoms[0], CHAMBERS)
    assert prepare("totalsegmentator_ml", tmp_path / "in", mapped(tmp_path, _51="left_atrium")) == 2
    assert "ct_denoised.nii.gz has values without a meaning" in capsys.readouterr().err


def test_the_map_goes_before_the_names_in_the_header(tmp_path, phantoms):
    write(tmp_path / "in" / "s0" / "ct.nii.gz", phantoms[0].volume.voxels)
    ml(tmp_path / "in" / "s0" / "all.nii.gz", phantoms[0], CHAMBERS)
    assert prepare("totalsegmentator_ml", tmp_path / "in", mapped(tmp_path, _2="right_atrium", _9="background")) == 0
    dataset = read_dataset(tmp_path / "data")
    for label, true in ((4, 2), (3, 3), (7, 7)):
        np.testing.assert_array_equal(dataset.labels(0) == label, phantoms[0].labels == true)
    warnings = json.loads((tmp_path / "data" / "dataset.json").read_text())["source"]["warnings"]
    assert "--labels gives values another meaning than the header of 1 file" in warnings


def test_of_two_scans_of_a_subject_none_is_chosen(tmp_path, phantoms, capsys):
    for name in ("ct.nii.gz", "CT.nii"):
        write(tmp_path / "in" / "s0" / name, phantoms[0].volume.voxels)
    ml(tmp_path / "in" / "s0" / "all.nii.gz", phantoms[0], CHAMBERS)
    assert prepare("totalsegmentator_ml", tmp_path / "in") == 2
    said = capsys.readouterr().err
    assert "ct.nii.gz" in said
    assert "CT.nii" in said


@pytest.mark.parametrize(
    "xml", ["<LabelTable><Label", "<LabelTable><Label/></LabelTable>", '<!DOCTYPE a [<!ENTITY b "c">]><LabelTable/>']
)
def test_a_damaged_table_is_one_line(tmp_path, phantoms, capsys, xml):
    write(tmp_path / "in" / "s0" / "ct.nii.gz", phantoms[0].volume.voxels)
    image = nibabel.Nifti1Image(stored(phantoms[0].labels), np.eye(4))
    image.header.extensions.append(Nifti1Extension(0, xml.encode()))
    image.to_filename(tmp_path / "in" / "s0" / "all.nii.gz")
    assert prepare("totalsegmentator_ml", tmp_path / "in") == 2
    assert "damaged label table" in capsys.readouterr().err
