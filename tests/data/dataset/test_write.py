"""The dataset folder: what is written is read, what is damaged is refused, splits never share a patient."""

import dataclasses
import json
import os

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART
from heartseg_jax.data.dataset import write as store
from heartseg_jax.data.dataset.records import check_unchanged
from heartseg_jax.data.dataset.splits import GAP, split_sizes
from heartseg_jax.errors import UserError

PLACES = {"a": "train", "b": "validation", "c": "test"}


def write(path, *, overwrite=False, change=lambda identity, images, labels: None, places=PLACES):
    with store.DatasetWriter(
        path, intensity="HU", height=4, width=5, label_set=HEART, source={"kind": "hand"}, overwrite=overwrite
    ) as writer:
        for index, (identity, split) in enumerate(places.items()):
            images = np.arange(40, dtype=np.int16).reshape(2, 4, 5) + 100 * index - 1000
            labels = np.zeros((2, 4, 5), np.uint8)
            labels[0, 0, :3] = (1, 8, 255)
            change(identity, images, labels)
            writer.add(
                identity,
                images,
                labels,
                names=["s0", "s1"],
                split=split,
                spacing_mm=(2.5, 0.7, 0.7),
                contiguous=True,
                merge=(0, 1, 2, 3, 4, 5, 6, 7, 4),
            )
    return store.read_dataset(path)


def edit(path, change):
    record = json.loads((path / "dataset.json").read_text())
    change(record)
    (path / "dataset.json").write_text(json.dumps(record))


def test_what_is_written_is_read(tmp_path):
    dataset = write(tmp_path / "ds")
    assert (dataset.height, dataset.width, dataset.intensity, dataset.split_kind) == (4, 5, "HU", "patient")
    patient = dataset.patients[1]
    assert patient.spacing_mm == (2.5, 0.7, 0.7)
    assert patient.merge == (0, 1, 2, 3, 4, 5, 6, 7, 4)
    assert patient.class_counts == ((17, 1, 0, 0, 0, 0, 0, 0, 1, 1), (20, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    assert dataset.examples("validation") == [(1, 0), (1, 1)]
    assert [p.id for p in dataset.patients_in("test")] == ["c"]
    images = dataset.images(patient)
    assert isinstance(images, np.memmap)
    assert images.dtype == np.int16
    assert images[1, 3, 4] == -861  # 39 + 100 - 1000
    np.testing.assert_array_equal(dataset.images(1), images)
    store.verify(dataset)
    assert [p.name for p in tmp_path.iterdir()] == ["ds"]


def test_nothing_half_written(tmp_path):
    path = tmp_path / "ds"

    def fail(identity, images, labels):
        if identity == "c":
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        write(path, change=fail)
    assert list(tmp_path.iterdir()) == []
    old = write(path)
    with pytest.raises(RuntimeError):
        write(path, change=fail, overwrite=True)
    store.verify(store.read_dataset(path))
    assert store.read_dataset(path) == old


def test_only_datasets_are_overwritten_and_only_when_asked(tmp_path):
    path = tmp_path / "ds"
    write(path)
    with pytest.raises(UserError, match="--overwrite"):
        write(path)
    write(path, overwrite=True, places={"x": "train"})
    assert [p.id for p in store.read_dataset(path).patients] == ["x"]
    assert [p.name for p in tmp_path.iterdir()] == ["ds"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a dataset"):
        write(other, overwrite=True)
    assert (other / "chapter1.tex").read_text() == "years of work"


@pytest.mark.parametrize("value", [9, 128, 254])
def test_labels_out_of_range_are_refused(tmp_path, value):
    def change(identity, images, labels):
        labels[1, 2, 2] = value

    with pytest.raises(UserError, match=f"patient a: slice 1 holds label values \\[{value}\\]"):
        write(tmp_path / "ds", change=change)


@pytest.mark.parametrize("identity", ["../up", "", "a b", ".hidden", "A"])
def test_patient_names_that_cannot_be(tmp_path, identity):
    with pytest.raises(UserError, match="patient"):
        write(tmp_path / "ds", places={"a": "train", identity: "test"})


def test_an_unknown_intensity_unit_is_refused(tmp_path):
    with pytest.raises(UserError, match="'hu'"):
        store.DatasetWriter(tmp_path / "ds", intensity="hu", height=4, width=5, source={}, label_set=HEART)


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "3"])
def test_an_index_that_is_no_object_is_refused(tmp_path, content):
    write(tmp_path / "ds")
    (tmp_path / "ds" / "dataset.json").write_text(content)
    with pytest.raises(UserError, match="not an object"):
        store.read_dataset(tmp_path / "ds")


def test_missing_things_are_named(tmp_path):
    with pytest.raises(UserError, match="no dataset at"):
        store.read_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no dataset\.json"):
        store.read_dataset(tmp_path)
    write(tmp_path / "ds")
    (tmp_path / "ds" / "b.labels.npy").unlink()
    with pytest.raises(UserError, match=r"b\.labels\.npy cannot be read"):
        store.read_dataset(tmp_path / "ds")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format_version=7), "format 7, not 1"),
        (lambda r: r.pop("height"), "no field 'height'"),
        (lambda r: r.update(width=6), "is int16"),
        (lambda r: r.update(intensity="uint8"), "is int16"),
        (lambda r: r.update(patients=[]), "no patient"),
        (lambda r: r["patients"][0].update(merge=[0, 1]), "merge needs 9"),
        (
            lambda r: r["patients"][0]["splits"].reverse() or r["patients"][0].update(splits=["train", "test"]),
            "several",
        ),
        (lambda r: r["patients"][0].update(splits=["train"]), "differ in length"),
        (lambda r: r["patients"][0].update(splits=["exam", "exam"]), "unknown split"),
        (lambda r: r["patients"][0]["class_counts"][0].__setitem__(0, 18), "do not add up to its 20"),
        (lambda r: r["patients"][0].update(id="../ds/a"), "no patient's id"),
        (lambda r: r["patients"].append(r["patients"][0]), "patient a occurs twice"),
        (lambda r: r["patients"][0].update(spacing_mm=[1, 1]), "three numbers of mm"),
        (lambda r: r["patients"][0].update(spacing_mm=[0, 1, 1]), "three numbers of mm"),
        (lambda r: r["patients"][0].update(spacing_mm=[float("nan")] * 3), "NaN"),
        (lambda r: r["patients"][0].update(contiguous="false"), "contiguous must be bool"),
        (lambda r: r["patients"][0].update(names=[None, None]), "names must be list of str"),
        (lambda r: r["patients"][0].update(splits=[["test"]] * 2), "splits must be list of str"),
        (lambda r: r["patients"][0].update(sha256={}), "needs the digests"),
        (lambda r: r.update(height=float("inf")), "Infinity"),
        (lambda r: r.update(intensity=["HU"]), "intensity must be str"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, change, message):
    write(tmp_path / "ds")
    edit(tmp_path / "ds", change)
    with pytest.raises(UserError, match=message):
        store.read_dataset(tmp_path / "ds")


def test_an_index_nested_without_end_is_refused(tmp_path):
    write(tmp_path / "ds")
    (tmp_path / "ds" / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="is damaged"):
        store.read_dataset(tmp_path / "ds")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "continues after its array"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"(2, 4, 5), }", b"(2, 4, 5,   ")), "cannot be read"),
        (lambda path: np.save(path, np.array([{}] * 2, object), allow_pickle=True), "cannot be read"),
        (lambda path: np.save(path, np.asfortranarray(np.load(path))), "in Fortran order"),
        (lambda path: path.unlink() or os.mkfifo(path), "cannot be read"),
    ],
    ids=["empty", "zip", "short", "long", "torn head", "objects", "fortran", "pipe"],
)
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_damaged_array_is_refused(tmp_path, kind, spoil, message):
    write(tmp_path / "ds")
    spoil(tmp_path / "ds" / f"b.{kind}.npy")
    with pytest.raises(UserError, match=rf"b\.{kind}\.npy .*{message}"):
        store.read_dataset(tmp_path / "ds")


def test_labels_changed_behind_the_index_are_not_scored(tmp_path):
    dataset = write(tmp_path / "ds")
    patient = dataset.patients[1]
    labels = np.array(dataset.labels(patient))
    check_unchanged(dataset, patient, labels[1:], [1])
    for value in (3, 77):
        labels[1, 0, 0] = value
        with pytest.raises(UserError, match=r"b\.labels\.npy"):
            check_unchanged(dataset, patient, labels[1:], [1])


def test_verify_sees_a_changed_pixel_and_a_wrong_count(tmp_path):
    dataset = write(tmp_path / "ds")
    images = np.load(tmp_path / "ds" / "a.images.npy")
    images[0, 0, 0] += 1
    np.save(tmp_path / "ds" / "a.images.npy", images)
    with pytest.raises(UserError, match="images of patient a in "):
        store.verify(dataset)
    write(tmp_path / "ds", overwrite=True)
    # Two counts exchanged still add up: only reading the labels tells.
    edit(tmp_path / "ds", lambda r: r["patients"][2]["class_counts"].reverse())
    with pytest.raises(UserError, match="counts of patient c"):
        store.verify(store.read_dataset(tmp_path / "ds"))


@pytest.mark.parametrize(
    ("count", "fractions", "expected"),
    [
        (1, (0.7, 0.15, 0.15), (1, 0, 0)),
        (2, (0.7, 0.15, 0.15), (1, 0, 1)),
        (3, (0.7, 0.15, 0.15), (1, 1, 1)),
        (5, (0.7, 0.15, 0.15), (3, 1, 1)),
        (20, (0.7, 0.15, 0.15), (14, 3, 3)),
        (10, (0.0, 0.0, 1.0), (0, 0, 10)),
        (3, (0.1, 0.45, 0.45), (1, 1, 1)),
        (7, (4, 2, 1), (4, 2, 1)),
        (4, (1, 0, 0), (4, 0, 0)),
    ],
)
def test_split_sizes(count, fractions, expected):
    assert split_sizes(count, fractions) == expected


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.7, -0.4), (0.5, 0.2, 0.2), (3, 1, 2), (float("nan"),) * 3])
def test_impossible_splits(fractions):
    with pytest.raises(UserError):
        split_sizes(5, fractions)


def test_splits_follow_the_seed_not_the_order():
    ids = [f"p{k}" for k in range(20)]
    first = store.assign_splits(ids, seed=3)
    assert first == store.assign_splits(ids[::-1], seed=3)
    assert first != store.assign_splits(ids, seed=4)
    assert sorted(first) == sorted(ids)


def test_block_split_has_gaps():
    splits = store.block_splits(40)
    # 40 slices, gaps of 2: 36 are left, of which 0.15 * 36 = 5 validate, 5 test, and 26 train.
    assert splits == ("train",) * 26 + (GAP,) * 2 + ("validation",) * 5 + (GAP,) * 2 + ("test",) * 5
    assert store.block_splits(4) == ("train",) * 4
    assert set(store.block_splits(5)) == {"train", GAP, "validation", "test"}
    assert store.block_splits(10, (0.5, 0.0, 0.5), gap=2) == ("train",) * 4 + (GAP,) * 2 + ("test",) * 4


def test_leave_one_patient_out(tmp_path):
    dataset = write(tmp_path / "ds")
    resplit = store.with_test_patients(dataset, ["a"], ["b"])
    assert [p.splits[0] for p in resplit.patients] == ["test", "validation", "train"]
    assert resplit.examples("train") == [(2, 0), (2, 1)]
    for test, validation, message in (
        (["z"], [], "no patient z"),
        (["a"], ["a"], "cannot both"),
        (["a", "b"], ["c"], "left to train"),
    ):
        with pytest.raises(UserError, match=message):
            store.with_test_patients(dataset, test, validation)


def test_leaks_are_found(tmp_path):
    assert store.check_leaks(write(tmp_path / "clean")) == []

    def copy(identity, images, labels):
        if identity in "ac":
            images[1] = np.arange(20).reshape(4, 5)
        if identity == "b":
            images[0] = -1000  # Air in everybody is no leak.

    findings = store.check_leaks(write(tmp_path / "leaky", change=copy))
    assert findings == ["the same image is a/s1 in train and c/s1 in test"]


def test_a_patient_in_two_splits_is_a_leak(tmp_path):
    dataset = write(tmp_path / "ds")
    both = dataclasses.replace(dataset.patients[0], splits=("train", "test"))
    dataset = dataclasses.replace(dataset, split_kind="block", patients=(both, *dataset.patients[1:]))
    assert store.check_leaks(dataset) == ["patient a is in test and train"]


def test_arrays_are_mapped_as_numpy_would_in_any_header_version(tmp_path):
    labels = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4) % 9
    with store.DatasetWriter(
        tmp_path / "d", intensity="uint8", height=4, width=4, label_set=HEART, source={}
    ) as writer:
        writer.add("a", labels + 7, labels, names=["0", "1"], split="train")
    dataset = store.read_dataset(tmp_path / "d")
    for version in ((1, 0), (2, 0), (3, 0)):
        with dataset.array_path(dataset.patients[0], "labels").open("wb") as file:
            np.lib.format.write_array(file, labels, version=version)
        assert np.array_equal(dataset.labels(0), labels)
    assert np.array_equal(dataset.images(0), labels + 7)
