"""The audit of datasets that were made good and then spoilt, one way after another."""

import json

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.audit.audit import audit
from heartseg_jax.data.dataset.write import DatasetWriter, read_dataset
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.phantom.generator import PhantomSpec, generate

SPEC = PhantomSpec((12, 64, 56), (12.0, 4.0, 5.0))
SPLITS = {"a": "train", "b": "train", "c": "train", "d": "validation", "e": "test"}


@pytest.fixture(scope="module")
def patients():
    return {name: generate(11, k, SPEC) for k, name in enumerate(SPLITS)}


def write(path, patients, change=None, splits=SPLITS, persons=None, unit="HU"):
    """Write a dataset; `change` maps a patient to what becomes of (images, labels)."""
    names = list(splits)
    height, width = SPEC.shape[1:]
    with DatasetWriter(
        path, intensity=unit, height=height, width=width, label_set=HEART, source={"kind": "test"}
    ) as writer:
        for name in names:
            images, labels = patients[name].volume.voxels.astype(np.int16), patients[name].labels
            images, labels = (change or {}).get(name, lambda i, k: (i, k))(images, labels)
            if unit == "uint8":
                images = (np.clip((images.astype(float) + 200) / 800, 0, 1) * 255).astype(np.uint8)
            writer.add(
                name,
                images,
                np.ascontiguousarray(labels),
                names=[f"{name}_{z}" for z in range(len(labels))],
                split=splits[name],
                spacing_mm=SPEC.spacing_mm,
                contiguous=True,
                person=(persons or {}).get(name, ""),
            )
    return read_dataset(path)


def levels(found):
    return {finding.check: finding.level for finding in found.findings}


@pytest.mark.parametrize("unit", ["HU", "uint8"])
def test_a_good_dataset(tmp_path, patients, unit):
    found = audit(write(tmp_path / "d", patients, unit=unit))
    assert not {"leak", "near_duplicates", "mirrored", "labels_on_air", "not_hu", "changed"} & set(levels(found))
    assert "refuse" not in levels(found).values()
    row = found.patients[1]
    labels = patients["b"].labels
    assert row.pixels == (*((labels == k).sum() for k in range(9)), (labels == 255).sum())
    assert row.slices == 12
    assert row.slices_without_labels == sum(not ((plane > 0) & (plane < 9)).any() for plane in labels)
    assert (row.id, row.splits) == ("b", ("train",))


def test_a_row_tells_the_values_of_its_patient(tmp_path, patients):
    def flat(images, labels):
        images = np.full_like(images, -1000)
        images[:, 20:40, 20:40] = 50
        images[(labels > 0) & (labels < 9)] = 300
        return images, labels

    row = audit(write(tmp_path / "d", patients, {"b": flat})).patients[1]
    assert (row.low, row.blood) == (-1000, 300)


def copied(patients):
    """The first patient's slices, in another window of time and dose: noisier, and 20 HU brighter."""
    noise = np.random.default_rng(0).normal(20, 12, SPEC.shape)

    def change(images, labels):
        del images, labels
        return (patients["a"].volume.voxels + noise).astype(np.int16), patients["a"].labels

    return change


def test_a_patient_in_two_splits_under_two_names_is_found_and_shown(tmp_path, patients):
    found = audit(write(tmp_path / "d", patients, {"e": copied(patients)}))
    assert levels(found)["near_duplicates"] == "warn"
    assert len(found.pairs) >= 8
    pair = found.pairs[0]
    assert (pair.one_split, pair.other_split) == ("train", "test")
    assert pair.one.split()[-1] == pair.other.split()[-1]
    assert pair.one.startswith("a, slice ")
    assert pair.correlation > 0.98


def test_two_names_within_one_split_leak_nothing(tmp_path, patients):
    assert audit(write(tmp_path / "d", patients, {"b": copied(patients)})).pairs == []


def test_the_same_slices_in_two_splits_are_refused(tmp_path, patients):
    same = lambda images, labels: (patients["a"].volume.voxels.astype(np.int16), patients["a"].labels)  # noqa: E731
    found = audit(write(tmp_path / "d", patients, {"e": same}))
    assert levels(found)["leak"] == "refuse"
    assert found.findings[0].seen.startswith("the same image is a/a_0 in train and e/e_0 in test, and 11 more")


def test_a_person_in_two_splits_is_refused(tmp_path, patients):
    found = audit(write(tmp_path / "d", patients, persons={"a": "p", "e": "p"}))
    assert levels(found)["leak"] == "refuse"
    assert "person p is in test and train" in found.findings[0].seen


SPOILT = {
    "mirrored": (lambda i, k: (i[:, :, ::-1], k[:, :, ::-1]), "mirrored", "warn"),
    "labels mirrored alone": (lambda i, k: (i, k[:, :, ::-1]), "mirrored", "warn"),
    "no labels": (lambda i, k: (i, np.zeros_like(k)), "no_labels", "warn"),
    "8 bits": (lambda i, k: (np.clip(i // 4, 0, 255).astype(np.int16), k), "not_hu", "refuse"),
    "not shifted to HU": (lambda i, k: ((i.astype(int) + 1024).astype(np.int16), k), "not_hu", "refuse"),
    "constant": (lambda i, k: (np.full_like(i, -1000), k), "constant", "refuse"),
    "labels beside the image": (lambda i, k: (i, np.roll(k, 25, axis=2)), "labels_on_air", "warn"),
    "reversed labels": (lambda i, k: (i, k[::-1]), "reversed_slices", "warn"),
}


@pytest.mark.parametrize(("change", "check", "level"), SPOILT.values(), ids=SPOILT)
def test_what_is_wrong_with_a_patient_names_the_patient(tmp_path, patients, change, check, level):
    found = audit(write(tmp_path / "d", patients, {"d": change}))
    assert levels(found)[check] == level
    assert next(f.seen for f in found.findings if f.check == check).startswith("d: ")


def test_several_patients_make_one_finding(tmp_path, patients):
    change = SPOILT["mirrored"][0]
    found = audit(write(tmp_path / "d", patients, {"a": change, "d": change}))
    (one,) = [finding for finding in found.findings if finding.check == "mirrored"]
    assert one.seen.startswith("2 patients (a, d), such as a: ")


def test_a_slip_of_the_hand_is_shown_with_its_place(tmp_path, patients):
    def slip(images, labels):
        labels = labels.copy()
        labels[6, 2:4, 3] = 3
        return images, labels

    found = audit(write(tmp_path / "d", patients, {"c": slip}))
    assert ("c, slice 6", "left_ventricle", 2, 3, 2) in found.slips
    assert levels(found)["islands"] == "warn"


def test_one_patient_alone_and_nobody_to_train(tmp_path, patients):
    blocks = ("train",) * 6 + ("gap",) + ("validation",) * 2 + ("gap",) + ("test",) * 2
    with DatasetWriter(
        tmp_path / "one",
        intensity="HU",
        height=64,
        width=56,
        label_set=HEART,
        source={"kind": "test"},
        split_kind="block",
    ) as writer:
        images = patients["a"].volume.voxels.astype(np.int16)
        writer.add("a", images, patients["a"].labels, names=[str(z) for z in range(12)], split=blocks)
    found = audit(read_dataset(tmp_path / "one"))
    assert any("memorisation, not generalisation" in finding.seen for finding in found.findings)
    assert found.pairs == [], "a patient's own neighbours are always alike"
    nobody = audit(write(tmp_path / "none", patients, splits=dict.fromkeys("abc", "test")))
    assert levels(nobody)["nobody_trains"] == "refuse"


def test_arrays_that_were_changed_later_are_refused(tmp_path, patients):
    dataset = write(tmp_path / "d", patients)
    path = dataset.array_path(dataset.patients[0], "images")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    found = audit(dataset)
    assert levels(found)["changed"] == "refuse"


def test_an_index_that_counts_other_pixels_is_refused(tmp_path, patients):
    write(tmp_path / "d", patients)
    path = tmp_path / "d" / "dataset.json"
    record = json.loads(path.read_text())
    record["patients"][2]["class_counts"] = [[64 * 56, *[0] * 9]] * 12
    path.write_text(json.dumps(record))
    found = audit(read_dataset(tmp_path / "d"))
    assert levels(found)["changed"] == "refuse"
    assert found.findings[0].seen == "c: the index counts other pixels than there are"


@pytest.mark.parametrize("damage", [{"warnings": 5}, {"warnings": [7]}])
def test_an_index_with_odd_warnings_is_damaged(tmp_path, patients, damage):
    write(tmp_path / "d", patients)
    path = tmp_path / "d" / "dataset.json"
    record = json.loads(path.read_text())
    record["source"] |= damage
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="is damaged: the warnings"):
        read_dataset(tmp_path / "d")


def test_volumes_of_one_person_are_not_parted_by_hand(tmp_path, patients):
    from heartseg_jax.data.dataset.write import with_test_patients

    dataset = write(tmp_path / "d", patients, persons={"a": "p", "b": "p"})
    with pytest.raises(UserError, match=r"a and b in .* are of one person: test or validate on all of them"):
        with_test_patients(dataset, ["a"])
    with pytest.raises(UserError, match="are of one person"):
        with_test_patients(dataset, ["a"], ["b"])
    assert {p.id for p in with_test_patients(dataset, ["a", "b"]).patients_in("test")} == {"a", "b"}
