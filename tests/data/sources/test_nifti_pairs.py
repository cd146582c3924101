"""NIfTI volumes and label maps into a dataset, from the command line: orientation, label values, grids, refusals."""

import json

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

import main
from heartseg_jax.data.dataset.write import read_dataset

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])  # i to Left, j to Posterior, k to Superior: patient-axial in LPS
SHAPE = (24, 20, 8)


def patient(seed, shape=SHAPE):
    """Image and labels [i, j, k]: air, a body, and a block of each of three structures."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int16)
    labels[4:8, 4:8, 2:6], labels[10:14, 4:8, 2:6], labels[4:8, 10:14, 2:5] = 500, 600, 420
    hu = np.where(labels > 0, 300, rng.integers(-20, 80, shape)).astype(np.int16)
    hu[:2], hu[-2:] = -1000, -1000
    return hu, labels


def write(folder, name, values, affine=AFFINE, order=None):
    (folder).mkdir(parents=True, exist_ok=True)
    if order is not None:
        affine = affine @ inv_ornt_aff(order, values.shape)
        values = apply_orientation(values, order)
    nibabel.Nifti1Image(np.ascontiguousarray(values), affine).to_filename(folder / f"{name}.nii.gz")


@pytest.fixture
def source(tmp_path):
    place = tmp_path / "source"
    orders = [None, np.array([[1, -1], [0, 1], [2, -1]]), np.array([[2, 1], [0, -1], [1, 1]])]
    for seed, order in enumerate(orders):
        hu, labels = patient(seed)
        # The label map of the third patient lies in another order of axes than its image.
        write(place / "images", f"p{seed}", hu, order=order)
        write(place / "labels", f"p{seed}", labels, order=order if seed < 2 else None)
    (tmp_path / "map.json").write_text(
        json.dumps({"500": "left_ventricle", "600": "right_ventricle", "420": "left_atrium"})
    )
    return place


def prepare(tmp_path, source, *words):
    flags = [f"--input={source}", f"--output={tmp_path / 'data'}", f"--labels={tmp_path / 'map.json'}"]
    return main.main(["prepare", "--source=nifti_pairs", *flags, "--merge=0,0,2,3,0,5,0,0,0", *words])


def test_patients_of_every_orientation_become_the_same_axial_slices(tmp_path, source):
    assert prepare(tmp_path, source) == 0
    dataset = read_dataset(tmp_path / "data")
    assert (dataset.intensity, dataset.height, dataset.width) == ("HU", 20, 24)
    assert [p.id for p in dataset.patients] == ["p0", "p1", "p2"]
    numbers = {0: 0, 500: 3, 600: 5, 420: 2}
    for seed, one in enumerate(dataset.patients):
        hu, labels = patient(seed)
        np.testing.assert_array_equal(dataset.images(one), hu.transpose(2, 1, 0))
        expected = np.vectorize(numbers.get)(labels).transpose(2, 1, 0)
        np.testing.assert_array_equal(dataset.labels(one), expected)
        np.testing.assert_allclose(one.spacing_mm, (4, 2, 2), atol=1e-6)
        assert one.contiguous
        assert one.merge == (0, 0, 2, 3, 0, 5, 0, 0, 0)
    assert {p.splits[0] for p in dataset.patients} == {"train", "validation", "test"}


def test_smaller_patients_are_padded_with_air(tmp_path, source):
    hu, labels = patient(7, (20, 16, 6))
    write(source / "images", "p9", hu)
    write(source / "labels", "p9", labels)
    assert prepare(tmp_path, source) == 0
    dataset = read_dataset(tmp_path / "data")
    small = dataset.patients[3]
    images = np.asarray(dataset.images(small))
    assert images.shape == (6, 20, 24)
    np.testing.assert_array_equal(images[:, 2:18, 2:22], hu.transpose(2, 1, 0))
    assert (images[:, :2] == -1000).all()
    assert any("2 sizes were padded" in warning for warning in dataset.source["warnings"])


def shifted(source, tmp_path):
    _, labels = patient(0)
    affine = AFFINE.copy()
    affine[0, 3] = 1.0
    write(source / "labels", "p0", labels, affine)


def other_shape(source, tmp_path):
    write(source / "labels", "p0", patient(0, (24, 20, 9))[1])


def strange_value(source, tmp_path):
    _, labels = patient(0)
    labels[0, 0, 0] = 421
    write(source / "labels", "p0", labels)


def no_labels(source, tmp_path):
    (source / "labels" / "p1.nii.gz").unlink()


def in_a_subfolder(source, tmp_path):
    (source / "images" / "more").mkdir()
    (source / "images" / "p1.nii.gz").rename(source / "images" / "more" / "p1.nii.gz")


def no_image(source, tmp_path):
    (source / "images" / "p1.nii.gz").unlink()


def wrong_map(source, tmp_path):
    (tmp_path / "map.json").write_text('{"500": "left_ventrikle"}')


def no_map(source, tmp_path):
    (tmp_path / "map.json").write_text("500=left")


@pytest.mark.parametrize(
    ("damage", "stated"),
    [
        (shifted, "is not on the grid of its image"),
        (other_shape, "9 x 20 x 24 at 4 x 2 x 2 mm"),
        (strange_value, "values without a meaning: 421; give their meaning with --labels=map.json"),
        (no_labels, "no file of the same name in labels for images/p1.nii.gz"),
        (no_image, "no file of the same name in images for labels/p1.nii.gz"),
        (in_a_subfolder, "1 file in the input not read: 1 in subfolders"),
        (wrong_map, "names 'left_ventrikle', which is none of"),
        (no_map, "map.json is damaged: no JSON"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_dataset(tmp_path, source, capsys, damage, stated):
    damage(source, tmp_path)
    assert prepare(tmp_path, source) == 2
    assert stated in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "data").exists()


def test_an_input_that_is_missing(tmp_path, capsys):
    (tmp_path / "map.json").write_text("{}")
    assert prepare(tmp_path, tmp_path / "nothing") == 2
    assert "holds `images` and `labels`" in capsys.readouterr().err
    assert main.main(["prepare", "--source=nifti_pairs", f"--output={tmp_path / 'data'}"]) == 2
    assert "needs --input=DIR" in capsys.readouterr().err


def test_the_dataset_does_not_hold_the_path_it_came_from(tmp_path, source):
    """Folders are often called after the patient."""
    place = tmp_path / "Zwicknagl_Leopoldine"
    source.rename(place)
    assert prepare(tmp_path, place) == 0
    assert "Zwicknagl" not in (tmp_path / "data" / "dataset.json").read_text()


def test_a_table_tells_that_two_volumes_are_one_person(tmp_path, source):
    (tmp_path / "who.csv").write_text("file,patient\np0.nii.gz,a\np1,b\np2.nii,a\n")
    assert prepare(tmp_path, source, f"--patients={tmp_path / 'who.csv'}") == 0
    first, other, last = read_dataset(tmp_path / "data").patients
    assert first.who == last.who == "a"
    assert first.splits[0] == last.splits[0] != other.splits[0]


def test_structures_that_the_map_does_not_name_are_unknown(tmp_path, source):
    flags = [f"--input={source}", f"--output={tmp_path / 'data'}", f"--labels={tmp_path / 'map.json'}"]
    assert main.main(["prepare", "--source=nifti_pairs", *flags]) == 0
    assert {p.merge for p in read_dataset(tmp_path / "data").patients} == {(0, 0, 2, 3, 0, 5, 0, 0, 0)}


def test_values_that_are_no_hu_are_refused_by_their_file(tmp_path, source, capsys):
    hu, _ = patient(1)
    write(source / "images", "p1", np.clip(hu, 0, 255).astype(np.int16), order=np.array([[1, -1], [0, 1], [2, -1]]))
    assert prepare(tmp_path, source) == 2
    assert "p1.nii.gz: 99 % of the values lie" in capsys.readouterr().err


def test_padding_becomes_air(tmp_path, source):
    hu, labels = patient(1)
    hu[:2] = -3024
    write(source / "images", "p1", hu)
    write(source / "labels", "p1", labels)
    assert prepare(tmp_path, source) == 0
    dataset = read_dataset(tmp_path / "data")
    assert dataset.images(1).min() == -1000
