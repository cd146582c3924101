"""Folders of images with colour masks, the real one among them."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from heartseg_jax.data.dataset import write
from heartseg_jax.data.dataset.describe import describe
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.png_pairs import png_pairs
from heartseg_jax.data.sources.write_cases import write_cases
from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.palette import labels_to_rgb


def put(folder, name, image, labels):
    for kind, array in (("images", image), ("masks", labels_to_rgb(labels))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / name)


def image_and_labels(height=6, width=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(1, 256, (height, width), np.uint8), rng.integers(0, 9, (height, width), np.uint8)


@pytest.fixture
def pairs(tmp_path):
    for k, name in enumerate(["A_2", "A_10", "B_1", "C_1"]):
        put(tmp_path / "in", f"{name}.png", *image_and_labels(seed=k))
    return tmp_path / "in"


def run(folder, output=None, overwrite=False, **options):
    options = Options(input=folder, **options)
    output = output or folder.parent / "ds"
    return write_cases(output, png_pairs(options), fractions=options.splits, overwrite=overwrite)


def test_pairs_become_a_dataset(pairs):
    dataset = run(pairs)
    assert [(p.id, p.names) for p in dataset.patients] == [
        ("A", ("A_2.png", "A_10.png")),
        ("B", ("B_1.png",)),
        ("C", ("C_1.png",)),
    ]
    assert (dataset.intensity, dataset.height, dataset.width, dataset.split_kind) == ("uint8", 6, 8, "patient")
    assert sorted(p.splits[0] for p in dataset.patients) == ["test", "train", "validation"]
    image, labels = image_and_labels(seed=1)  # A_10, the second in natural order.
    np.testing.assert_array_equal(dataset.images(0)[1], image)
    np.testing.assert_array_equal(dataset.labels(0)[1], labels)
    assert dataset.patients[0].spacing_mm is None
    assert not dataset.patients[0].contiguous
    write.verify(dataset)


# By hand on [[1, 2, 3], [4, 5, 6]]; turns are anticlockwise.
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ("standard", [[1, 2, 3], [4, 5, 6]]),
        ("flip-rows", [[4, 5, 6], [1, 2, 3]]),
        ("flip-columns", [[3, 2, 1], [6, 5, 4]]),
        ("rot90", [[3, 6], [2, 5], [1, 4]]),
        ("rot180", [[6, 5, 4], [3, 2, 1]]),
        ("rot270", [[4, 1], [5, 2], [6, 3]]),
        ("transpose", [[1, 4], [2, 5], [3, 6]]),
    ],
)
def test_orientation_turns_image_and_mask_alike(tmp_path, orientation, expected):
    plane = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    put(tmp_path / "in", "A_1.png", plane, plane)
    dataset = run(tmp_path / "in", orientation=orientation)
    np.testing.assert_array_equal(dataset.images(0)[0], expected)
    np.testing.assert_array_equal(dataset.labels(0)[0], expected)


def test_padding_with_air_around_the_middle(pairs):
    put(pairs, "C_2.png", np.full((2, 4), 200, np.uint8), np.full((2, 4), 3, np.uint8))
    dataset = run(pairs)
    image = dataset.images(2)[1]
    assert (image == 200).sum() == 8
    assert (image[2:4, 2:6] == 200).all()
    assert image.sum() == 8 * 200
    assert (dataset.labels(2)[1] == 3).sum() == 8
    assert dataset.patients[2].class_counts[1] == (40, 0, 0, 8, 0, 0, 0, 0, 0, 0)
    assert dataset.source["sizes"]["C_2.png"] == [2, 4]
    assert "padded to 6 x 8" in describe(dataset)


def test_a_name_written_in_two_ways_is_one_patient(pairs):
    put(pairs, "M\u00fc_1.png", *image_and_labels(seed=8))
    put(pairs, "Mu\u0308_2.png", *image_and_labels(seed=9))
    mask = pairs / "masks" / "Mu\u0308_2.png"
    mask.rename(pairs / "masks" / "M\u00fc_2.png")  # by the system on which it was painted
    dataset = run(pairs)
    assert sorted(p.num_slices for p in dataset.patients) == [1, 1, 2, 2]


def test_table_of_patients(pairs, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("file,patient\nA_2.png,x\nA_10,y\nB_1.png,y\nC_1.png,x\n")
    dataset = run(pairs, patients=table)
    assert [(p.id, p.names) for p in dataset.patients] == [
        ("x", ("A_2.png", "C_1.png")),
        ("y", ("A_10.png", "B_1.png")),
    ]
    for text, message in (
        ("file,patient\nA_2,x\n", "misses 3 of the files: A_10, B_1, C_1"),
        ("file,patient\nA_2,x\nA_10,x\nB_1,x\nC_1,x\nD_1,x\n", "without an image 1 of the files: D_1"),
        ("file,patient\nA_2,x\nA_2.png,y\n", "two patients"),
        ("name;who\n", "must begin with"),
        ("file,patient\nA_2\n", "row 2"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=message):
            run(pairs, patients=table, overwrite=True)


def test_what_does_not_pair_is_named(pairs):
    (pairs / "masks" / "A_10.png").unlink()
    with pytest.raises(UserError, match=r"no file of the same name in masks for images/A_10\.png"):
        run(pairs)
    (pairs / "images" / "A_10.png").unlink()
    (pairs / "images" / "C_1.png").unlink()
    with pytest.raises(UserError, match=r"no file of the same name in images for masks/C_1\.png"):
        run(pairs)
    with pytest.raises(UserError, match="no folder"):
        run(pairs / "images")
    assert not (pairs.parent / "ds").exists()


def test_sizes_that_differ_are_named(pairs):
    Image.new("RGB", (9, 9)).save(pairs / "masks" / "B_1.png")
    with pytest.raises(UserError, match=r"B_1\.png \(6 x 8, mask 9 x 9\)"):
        run(pairs)


def test_names_without_a_patient_are_refused(pairs):
    put(pairs, "0001.png", *image_and_labels())
    with pytest.raises(UserError, match="--patients"):
        run(pairs)


def test_forms_of_images(pairs):
    grey, labels = image_and_labels(seed=9)
    put(pairs, "D_1.png", np.stack([grey] * 3, -1), labels)
    tinted = np.zeros((6, 8, 3), np.uint8)
    tinted[..., 1] = 100
    put(pairs, "D_2.png", tinted, labels)
    put(pairs, "D_3.png", grey.astype(np.uint16), labels)
    dataset = run(pairs)
    images = dataset.images(3)
    np.testing.assert_array_equal(images[0], grey)
    assert (images[1] == 59).all()  # 0.587 * 100, rounded.
    np.testing.assert_array_equal(images[2], grey)
    assert any(text.startswith("D: 1 coloured image") and "D_2.png" in text for text in dataset.source["warnings"])
    Image.fromarray(np.full((6, 8), 1000, np.uint16)).save(pairs / "images" / "D_3.png")
    with pytest.raises(UserError, match=r"D_3\.png has more than 8 bits"):
        run(pairs, overwrite=True)
    assert len(write.read_dataset(pairs.parent / "ds").patients) == 4


def test_off_palette_refused_ignored_or_repaired(pairs):
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 2
    rgb = labels_to_rgb(labels)
    rgb[10, 10] = (250, 1, 0)
    put(pairs, "D_1.png", np.ones((40, 40), np.uint8), labels)
    Image.fromarray(rgb).save(pairs / "masks" / "D_1.png")
    with pytest.raises(UserError, match=r"D_1\.png \(1 of 400 pixels.*#fa0100"):
        run(pairs)
    dataset = run(pairs, max_off_palette=0.01)
    assert dataset.patients[3].class_counts[0] == (1200, 0, 399, 0, 0, 0, 0, 0, 0, 1)
    dataset = run(pairs, repair=True, overwrite=True)
    assert dataset.patients[3].class_counts[0] == (1200, 0, 400, 0, 0, 0, 0, 0, 0, 0)
    assert any("1 mask pixel in 1 file repaired; 0 stay" in w for w in dataset.source["warnings"])


def test_palette_of_the_users(pairs, tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"#ffffff": "LV"}))
    for path in (pairs / "masks").iterdir():
        Image.fromarray(np.array([[0, 255]] * 6, np.uint8).repeat(4, 1)).save(path)
    with pytest.raises(UserError, match="black and white"):
        run(pairs)
    dataset = run(pairs, colours=tmp_path / "map.json", merge=(0, 0, 0, 3, 0, 0, 0, 0, 0))
    assert dataset.patients[0].class_counts[0] == (24, 0, 0, 24, 0, 0, 0, 0, 0, 0)
    report = describe(dataset)
    assert "left_atrium counts as background" in report
    Image.fromarray(labels_to_rgb(np.full((6, 8), 2, np.uint8))).save(pairs / "masks" / "B_1.png")
    with pytest.raises(UserError, match="--colours replaces the standard palette, which has #ff0000"):
        run(pairs, colours=tmp_path / "map.json", overwrite=True)
    assert "not one training pixel" not in report  # What is not known need not be seen.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orientation": "upside-down"}, "unknown orientation"),
        ({"splits": (0.5, 0.1, 0.1)}, "neither adds up"),
        ({"colours": "nowhere.json"}, "cannot be read"),
    ],
)
def test_wrong_options(pairs, options, message):
    with pytest.raises(UserError, match=message):
        run(pairs, **options)
    assert not (pairs.parent / "ds").exists()


def test_one_patient_alone_is_split_by_block(tmp_path):
    for k in range(20):
        put(tmp_path / "in", f"A_{k}.png", *image_and_labels(seed=k))
    dataset = run(tmp_path / "in")
    assert dataset.split_kind == "block"
    # 20 slices, gaps of 1: 18 left, 2 validate, 2 test.
    assert [len(dataset.examples(s)) for s in write.SPLITS] == [14, 2, 2]
    assert "memorisation, not generalisation" in describe(dataset)


def test_the_same_image_in_two_splits_is_refused(pairs):
    put(pairs, "B_1.png", *image_and_labels(seed=0))
    with pytest.raises(UserError, match=r"A/A_2.png.*B/B_1.png.*--patients"):
        run(pairs)
    assert not (pairs.parent / "ds").exists()


def test_existing_outputs(pairs):
    run(pairs)
    with pytest.raises(UserError, match="--overwrite"):
        run(pairs)
    run(pairs, overwrite=True)


def test_the_real_slices(shared, tmp_path):
    dataset = run(shared / "data" / "heart_ct", tmp_path / "ds")
    assert {p.id: p.num_slices for p in dataset.patients} == {
        "1001": 3,
        "1002": 4,
        "1004": 2,
        "1005": 7,
        "1007": 5,
    }
    assert dataset.patients[0].names == ("1001_63.png", "1001_179.png", "1001_185.png")
    assert (dataset.height, dataset.width) == (512, 512)
    manifest = json.loads((shared / "data" / "heart_ct" / "manifest.json").read_text())
    assert len(manifest["slices"]) == 21
    for patient in dataset.patients:
        for name, plane in zip(patient.names, dataset.labels(patient), strict=True):
            path = shared / "data" / "heart_ct" / "labels" / name
            np.testing.assert_array_equal(plane, np.asarray(Image.open(path)))
    assert write.check_leaks(dataset) == []
    report = describe(dataset)
    assert "3 patients" in report
    assert "ascending_aorta" in report


def test_files_of_other_formats_and_in_subfolders_are_counted(pairs):
    for kind in ("images", "masks"):
        (pairs / kind / "1003").mkdir()
        Image.new("RGB", (4, 4)).save(pairs / kind / "1003" / "D_1.png")
        Image.new("RGB", (4, 4)).save(pairs / kind / "E_1.webp")
        (pairs / kind / "Thumbs.db").write_bytes(b"x")
    dataset = run(pairs)
    assert [p.id for p in dataset.patients] == ["A", "B", "C"]
    (warning,) = [text for text in dataset.source["warnings"] if "not read" in text]
    assert warning.startswith("4 files")
    assert "2 .webp" in warning
    assert "2 in subfolders" in warning


def test_image_and_mask_lie_on_each_other_whatever_their_exif(pairs):
    image, labels = image_and_labels(seed=9)
    exif = Image.Exif()
    exif[0x0112] = 6
    put(pairs, "D_1.png", image, labels)
    Image.fromarray(np.rot90(image)).save(pairs / "images" / "D_1.png", exif=exif)
    dataset = run(pairs)
    np.testing.assert_array_equal(dataset.images(3)[0], image)
    np.testing.assert_array_equal(dataset.labels(3)[0], labels)
    assert [text for text in dataset.source["warnings"] if text.startswith("1 mask with another EXIF orientation")]


def test_a_patient_without_a_label_is_warned_of_and_a_dataset_without_any_is_refused(pairs):
    put(pairs, "B_1.png", image_and_labels(seed=2)[0], np.zeros((6, 8), np.uint8))
    assert any(text.startswith("B: not one pixel") for text in run(pairs).source["warnings"])
    for path in (pairs / "masks").iterdir():
        Image.new("RGB", (8, 6)).save(path)
    with pytest.raises(UserError, match="all masks .4. are empty"):
        run(pairs, overwrite=True)


def test_doubts_are_kept_with_the_dataset_but_no_name(tmp_path):
    for p in range(3):
        noise = ndimage.gaussian_filter(np.random.default_rng(p).normal(size=(8, 40, 48)), (3, 4, 4))
        for k, plane in enumerate(noise):
            image = np.clip(128 + 2000 * plane, 1, 255).astype(np.uint8)
            put(tmp_path / "in", f"IM{k:04d}_Meier{'ABC'[p]}.png", image, image_and_labels(40, 48, seed=8 * p + k)[1])
    dataset = run(tmp_path / "in")
    assert any("--patients" in text for text in dataset.source["warnings"])
    assert "Meier" not in (dataset.path / "dataset.json").read_text()
