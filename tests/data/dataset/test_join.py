"""Several dataset folders as one dataset."""

import dataclasses

import numpy as np
import pytest

from heartseg_jax.anatomy import HEART, TUMOUR
from heartseg_jax.data.dataset import join, verify
from heartseg_jax.data.dataset.records import with_test_patients
from heartseg_jax.data.dataset.write import DatasetWriter
from heartseg_jax.errors import UserError


def write(path, patients, intensity="uint8", side=8, label_set=HEART, first=0):
    """A dataset of `{id: (split, slices)}`; slice z of patient n is all `first + n + z`, with label 1 at (0, 0)."""
    dtype = np.int16 if intensity == "HU" else np.uint8
    with DatasetWriter(
        path, intensity=intensity, height=side, width=side, label_set=label_set, source={"kind": "test"}
    ) as writer:
        for number, (name, (split, count)) in enumerate(patients.items()):
            images = np.zeros((count, side, side), dtype) + (first + number + np.arange(count))[:, None, None]
            labels = np.zeros(images.shape, np.uint8)
            labels[:, 0, 0] = 1
            writer.add(name, images.astype(dtype), labels, names=[f"{name}_{z}" for z in range(count)], split=split)
    return path


@pytest.fixture
def two(tmp_path):
    one = write(tmp_path / "one", {"p": ("train", 2), "q": ("test", 1)}, "HU", 8, first=-100)
    other = write(tmp_path / "other", {"p": ("train", 3), "r": ("validation", 1)}, "uint8", 16)
    return join.read_datasets(f"{one},{other}")


def test_patients_are_concatenated_under_the_name_of_their_folder(two):
    assert [p.id for p in two.patients] == ["one/p", "one/q", "other/p", "other/r"]
    assert two.intensity == "HU+uint8"
    assert two.examples("train") == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert two.patients[2].slice_name(1) == "1"
    assert [part.name for part in two.parts] == ["one", "other"]


def test_each_patient_is_read_from_its_own_part(two):
    assert two.images(0).dtype == np.int16
    assert two.images(0)[:, 0, 0].tolist() == [-100, -99]
    assert two.images(2).shape == (3, 16, 16)
    assert two.images(two.patients[3]).dtype == np.uint8
    assert two.labels(2)[0, 0, 0] == 1
    assert [two.part_of(n).height for n in range(4)] == [8, 8, 16, 16]
    verify.check_arrays(two)


def test_a_changed_array_of_any_part_is_found(two):
    path = two.array_path(two.patients[3], "images")
    np.save(path, np.full((1, 16, 16), 99, np.uint8))
    with pytest.raises(UserError, match="other/r"):
        verify.check_arrays(two)


def test_other_test_patients_change_the_parts_too(two):
    found = with_test_patients(two, ["other/p"])
    assert [[p.id for p in part.patients_in("test")] for part in found.parts] == [["one/q"], ["other/p"]]
    with pytest.raises(UserError, match="no patient p in"):
        with_test_patients(two, ["p"])


def test_one_path_is_one_dataset_also_with_a_comma_in_its_name(tmp_path):
    path = write(tmp_path / "a,b", {"p": ("train", 1)})
    assert join.paths_of(str(path)) == (path,)
    assert join.read_datasets(str(path)).members == ()
    with pytest.raises(UserError, match="empty"):
        join.paths_of("a,,b")


def test_what_cannot_be_joined_is_refused(tmp_path):
    one, same = (write(tmp_path / folder / "one", {"p": ("train", 1)}) for folder in "ab")
    with pytest.raises(UserError, match="rename"):
        join.read_datasets(f"{one},{same}")
    tumour = write(tmp_path / "tumour", {"p": ("train", 1)}, label_set=TUMOUR)
    with pytest.raises(UserError, match="task"):
        join.read_datasets(f"{one},{tumour}")


def test_the_same_images_in_two_splits_of_two_parts_are_named(tmp_path):
    one = write(tmp_path / "one", {"p": ("train", 2)})
    other = write(tmp_path / "other", {"x": ("test", 2)})
    [found] = join.copies(join.read_datasets(f"{one},{other}"))
    assert found.index("other/x") < found.index("one/p")
    alone = join.read_datasets(str(one))
    assert join.copies(dataclasses.replace(alone, patients=alone.patients * 2)) == []


def test_splitting_again_leaves_the_parts_of_which_no_patient_is_named(two):
    again = with_test_patients(two, ["other/p"])
    assert {p.id: p.splits[0] for p in again.patients} == {
        "one/p": "train",
        "one/q": "test",  # what its own dataset left out stays left out
        "other/p": "test",
        "other/r": "train",
    }
    assert [len(part.examples("train")) for part in again.parts] == [2, 1]
