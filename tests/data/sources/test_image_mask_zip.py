"""A zip or a folder of numbered images and masks: blocks, splits, pixels, and each thing that is refused."""

import io
import itertools
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import main
from heartseg_jax.data.dataset.describe import describe
from heartseg_jax.data.dataset.write import check_leaks, read_dataset
from heartseg_jax.data.sources import image_mask_zip
from heartseg_jax.data.sources.case import Options
from heartseg_jax.data.sources.image_mask_zip import ONE_STRUCTURE, into_blocks, runs_of_blocks
from heartseg_jax.data.sources.write_cases import write_cases
from heartseg_jax.errors import UserError

SIZE = 16


def encoded(array, kind="PNG"):
    target = io.BytesIO()
    Image.fromarray(array).save(target, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return target.getvalue()


def picture(number):
    """Grey noise of its own for each slice."""
    return np.random.default_rng(number).integers(1, 255, (SIZE, SIZE), dtype=np.uint8)


def disc(number):
    """A mask with `number` % 7 rows of 5 white pixels."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[2 : 2 + number % 7, 3:8] = 255
    return mask


def members(count=40):
    found = {}
    for number in range(1, count + 1):
        found[f"images/{number:04d}.png"] = encoded(picture(number))
        found[f"masks/{number:04d}.png"] = encoded(disc(number))
    return found


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def prepare_image_mask(source, output, block=64):
    return write_cases(output, image_mask_zip.image_mask_zip(Options(input=source, block=block)))


def made(tmp_path, files, block=4):
    return prepare_image_mask(zipped(tmp_path / "in.zip", files), tmp_path / "out", block)


def test_blocks_of_neighbours_are_the_patients_and_one_is_left_out_at_each_border(tmp_path):
    dataset = made(tmp_path, members())
    # Ten blocks, one left out at each of two borders: of eight, 15 % are one (1.2, rounded down) each; the rest train.
    assert [(p.id, p.splits[0]) for p in dataset.patients] == [
        *((f"slices_{n:04d}-{n + 3:04d}", "train") for n in (1, 5, 9, 13, 17, 21)),
        ("slices_0029-0032", "validation"),
        ("slices_0037-0040", "test"),
    ]
    assert dataset.source["left_out"] == ["slices_0025-0028", "slices_0033-0036"]
    assert (dataset.label_set.name, dataset.intensity, dataset.split_kind) == ("tumour", "uint8", "patient")
    assert (dataset.height, dataset.width) == (SIZE, SIZE)
    patient = dataset.patients[1]
    assert patient.merge == ONE_STRUCTURE == (0, 1, 0, 0, 0, 0, 0, 0, 0)
    assert (patient.spacing_mm, patient.contiguous) == (None, False)
    assert patient.names[0] == "images/0005.png"
    np.testing.assert_array_equal(dataset.images(patient)[2], picture(7))
    np.testing.assert_array_equal(dataset.labels(patient)[0], disc(5) // 255)
    assert [row[1] for row in patient.class_counts] == [25, 30, 0, 5]  # 5, 6, 7 % 7 and 8 % 7 rows of five
    assert check_leaks(dataset) == []


def test_the_index_and_the_page_say_that_blocks_stand_in_for_patients(tmp_path):
    dataset = made(tmp_path, members())
    record = json.loads((dataset.path / "dataset.json").read_text())
    assert record["task"] == "tumour"
    assert record["source"]["block"] == 4
    page = describe(dataset)
    for text in (page, json.dumps(record["source"])):
        assert "blocks of 4 consecutive slices replace patients" in text
        assert "slices_0025-0028, slices_0033-0036" in text
    assert "\ntumour  " in page
    assert "ascending_aorta" not in page


def test_a_folder_gives_the_same_as_its_zip(tmp_path):
    files = members()
    for name, content in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "folder/images/.DS_Store").write_bytes(b"")
    folder = prepare_image_mask(tmp_path / "folder", tmp_path / "other", block=4)
    assert folder.patients == made(tmp_path, files).patients


def test_a_zip_with_folders_and_a_readme_is_read_in_memory_alone(tmp_path):
    files = {"images/": b"", "masks/": b"", "README.txt": b"hello", "__MACOSX/images/._0001.png": b"x", **members()}
    dataset = made(tmp_path, files)
    assert len(dataset.patients) == 8
    assert {p.name for p in tmp_path.iterdir()} == {"in.zip", "out"}


def test_a_remainder_joins_the_last_block_where_it_is_less_than_half():
    assert [len(b) for b in into_blocks(range(9), 4)] == [4, 5]
    assert [len(b) for b in into_blocks(range(10), 4)] == [4, 4, 2]
    assert [len(b) for b in into_blocks(range(1), 4)] == [1]


def test_rounds_of_blocks_meet_within_a_split():
    shares = (0.7, 0.15, 0.15)
    one = ("train",) * 10 + ("gap",) + ("validation",) * 2 + ("gap",) + ("test",) * 2
    assert runs_of_blocks(16, shares) == one
    assert runs_of_blocks(32, shares) == one + one[::-1]  # test meets test, and the next would meet train
    assert runs_of_blocks(48, shares) == one + one[::-1] + one
    for count in range(5, 120):
        splits = runs_of_blocks(count, shares)
        assert len(splits) == count
        assert {"train", "validation", "test"} <= set(splits)
        for before, after in itertools.pairwise(splits):
            assert before == after or "gap" in (before, after)


def test_masks_count_by_what_is_not_black_whatever_their_mode(tmp_path):
    files = members()
    mask = disc(6)
    rgb = np.zeros((SIZE, SIZE, 3), np.uint8)
    rgb[mask > 0] = (0, 3, 0)
    indexed = Image.fromarray((mask > 0).astype(np.uint8), mode="P")
    indexed.putpalette([9, 9, 9, 0, 0, 0])  # index 1 is the black one: the picture is the mask's negative
    target = io.BytesIO()
    indexed.save(target, "PNG")
    files["masks/0001.png"] = encoded(mask > 0)  # one bit
    files["masks/0002.png"] = encoded((mask > 0).astype(np.uint8))  # 0 and 1
    files["masks/0003.png"] = encoded(rgb)
    files["masks/0004.png"] = encoded((mask > 0).astype(np.uint16) * 300)
    files["masks/0005.png"] = target.getvalue()
    dataset = made(tmp_path, files)
    for z in range(4):
        np.testing.assert_array_equal(dataset.labels(0)[z], mask > 0)
    np.testing.assert_array_equal(dataset.labels(1)[0], mask == 0)


def test_grey_images_may_be_jpeg_rgb_of_equal_channels_or_one_bit(tmp_path):
    files = members()
    flat = np.full((SIZE, SIZE), 77, np.uint8)
    del files["images/0001.png"]
    files["images/0001.jpg"] = encoded(flat, "JPEG")
    files["images/0002.png"] = encoded(np.dstack([picture(2)] * 3))
    files["images/0003.png"] = encoded(disc(3) > 0)
    dataset = made(tmp_path, files)
    np.testing.assert_array_equal(dataset.images(0)[0], flat)
    np.testing.assert_array_equal(dataset.images(0)[1], picture(2))
    np.testing.assert_array_equal(dataset.images(0)[2], disc(3))


def colour():
    image = np.dstack([picture(2)] * 3)
    image[0, 0] = (200, 10, 10)
    return image


def claims(side):
    """A PNG whose head claims `side` x `side` pixels."""
    content = bytearray(encoded(picture(1)))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


BROKEN = {
    "an image without a mask": ({"masks/0003.png": None}, "no mask for images/0003.png in"),
    "a mask without an image": ({"images/0007.png": None}, "no image for masks/0007.png in"),
    "other sizes of a pair": (
        {"masks/0002.png": encoded(np.zeros((8, 9), np.uint8))},
        "images/0002.png is 16 x 16 and masks/0002.png 8 x 9 pixels",
    ),
    "another size than the first": (
        {"images/0006.png": encoded(picture(1)[:8]), "masks/0006.png": encoded(disc(1)[:8])},
        "images/0006.png is 8 x 16 pixels, the first image 16 x 16",
    ),
    "a coloured image": ({"images/0002.png": encoded(colour())}, "images/0002.png is coloured"),
    "16 bits": ({"images/0002.png": encoded(picture(2).astype(np.uint16) * 9)}, "more than 8 bits"),
    "a truncated image": ({"images/0004.png": encoded(picture(4))[:-60]}, "images/0004.png cannot be read as an image"),
    "an empty file": ({"masks/0004.png": b""}, "masks/0004.png cannot be read as an image"),
    "text": ({"images/0004.png": b"not an image at all"}, "images/0004.png cannot be read as an image"),
    "a huge image": ({"images/0004.png": claims(30000)}, "images/0004.png"),
    "a very large image": ({"images/0004.png": claims(5000)}, "images/0004.png is 5000 x 5000 pixels; slices have 8"),
    "a tiny first image": ({"images/0001.png": encoded(picture(1)[:4])}, "images/0001.png is 4 x 16 pixels"),
    "another name": ({"images/first.png": encoded(picture(1))}, "are called by a number and end in .jpg or .jpeg or"),
    "a mask as jpeg": ({"masks/0001.jpg": encoded(disc(1), "JPEG")}, "masks/0001.jpg in"),
    "a number twice": ({"images/1.jpg": encoded(picture(1), "JPEG")}, "have the same number"),
    "a path that leads out": ({"../evil.png": b"x"}, "'../evil.png', a path that leads out"),
    "an absolute path": ({"/etc/images/0001.png": b"x"}, "a path that leads out"),
    "a drive": ({"C:\\images\\0001.png": b"x"}, "a path that leads out"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_named_in_one_line_and_nothing_is_left(tmp_path, case):
    changes, message = BROKEN[case]
    files = {name: content for name, content in {**members(), **changes}.items() if content is not None}
    with pytest.raises(UserError) as caught:
        made(tmp_path, files)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} == {"in.zip"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no pairs images/NUMBER.jpg (or .png) and masks/NUMBER.png at its top: 0 images, 0 masks"),
        ({f"brain/{name}": c for name, c in members().items()}, "0 images, 0 masks"),
        ({n: c for n, c in members().items() if n.startswith("images")}, "40 images, 0 masks"),
        (members(12), "12 slices make 3 blocks of 4, too few to part training from test (5 at least): give --block=1"),
        (
            {n: encoded(np.zeros((SIZE, SIZE), np.uint8)) if n[0] == "m" else c for n, c in members().items()},
            "all masks (32) are empty",
        ),
        (
            {n: encoded(np.full((SIZE, SIZE), 1, np.uint8)) if n[0] == "m" else c for n, c in members().items()},
            "is 0, the background",
        ),
    ],
)
def test_a_source_that_is_no_such_source_is_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        made(tmp_path, files)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_a_missing_and_an_encrypted_zip_are_refused(tmp_path):
    good = zipped(tmp_path / "good.zip", members()).read_bytes()
    (tmp_path / "cut.zip").write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match="cut.zip cannot be read as a zip"):
        prepare_image_mask(tmp_path / "cut.zip", tmp_path / "out")
    with pytest.raises(UserError, match="no zip or folder at"):
        prepare_image_mask(tmp_path / "none.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        info = archive.getinfo("images/0005.png")
        content = info.header_offset + 30 + len(info.filename) + 20
        directory = good.index(b"PK\x01\x02")
    rotten = bytearray(good)
    rotten[content] ^= 0xFF  # of the packed bytes: the checksum no longer fits
    (tmp_path / "rotten.zip").write_bytes(rotten)
    with pytest.raises(UserError, match="images/0005.png cannot be read as an image"):
        prepare_image_mask(tmp_path / "rotten.zip", tmp_path / "out", block=4)
    locked = bytearray(good)
    locked[6] |= 1  # the flag of encryption, at the file and in the directory
    locked[directory + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    with pytest.raises(UserError, match="locked.zip is encrypted .images/0001.png"):
        prepare_image_mask(tmp_path / "locked.zip", tmp_path / "out", block=4)


def test_a_member_that_unpacks_to_more_than_a_slice_can_be_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(image_mask_zip, "MOST_BYTES", 2**20)
    with pytest.raises(UserError, match="images/0003.png cannot be read as an image .it has more than 1 MiB"):
        made(tmp_path, {**members(), "images/0003.png": bytes(2**22)})


def test_a_link_inside_a_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "in.zip", members())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("images/0099.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="a path that leads out"):
        prepare_image_mask(path, tmp_path / "out", block=4)


def test_the_command_line_makes_it(tmp_path, capsys):
    source, output = zipped(tmp_path / "in.zip", members()), tmp_path / "out"
    words = ["prepare", "--source=image_mask_zip", f"--output={output}"]
    assert main.main(words) == 2
    assert "needs --input=FILE.zip" in capsys.readouterr().err
    assert main.main([*words, f"--input={source}", "--block=0"]) == 2
    assert "--block" in capsys.readouterr().err
    assert main.main([*words, f"--input={source}", "--block=4", "--splits=0.5,0.5,0"]) == 0
    assert "replace patients" in capsys.readouterr().out
    assert {p.splits[0] for p in read_dataset(output).patients} == {"train", "validation"}


def test_real_pairs_of_the_brain(shared, tmp_path):
    archive = shared / "data" / "brain_mri" / "brain_t1ce_256.zip"
    with zipfile.ZipFile(archive) as real:
        wanted = [
            f"{kind}/{n:04d}.{end}" for n in range(101, 111) for kind, end in (("images", "jpg"), ("masks", "png"))
        ]
        files = {name: real.read(name) for name in wanted}
    dataset = made(tmp_path, files, block=2)
    assert (dataset.height, dataset.width, len(dataset.patients)) == (256, 256, 3)
    for patient in dataset.patients:
        assert dataset.images(patient).max() > 128
        for counts in patient.class_counts:  # every slice of this source holds a tumour, never most of the head
            assert 50 < counts[1] < 0.25 * 256 * 256
            assert sum(counts[2:]) == 0


def test_exif_orientation_backslashes_and_what_windows_leaves(tmp_path):
    files = members()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    target = io.BytesIO()
    Image.fromarray(np.rot90(picture(2))).save(target, "PNG", exif=exif)
    files["images/0002.png"] = target.getvalue()
    files |= {"images/Thumbs.db": b"x", "masks/desktop.ini": b"x", "masks/.DS_Store": b"x", "notes/a.txt": b"x"}
    files = {name.replace("/", "\\") if name[-5] == "3" else name: content for name, content in files.items()}
    dataset = made(tmp_path, files)
    np.testing.assert_array_equal(dataset.images(0)[1], picture(2))
    assert len(dataset.patients) == 8
    assert "1 file outside of images/ and masks/ not read" in dataset.source["warnings"]
    (warning,) = [text for text in dataset.source["warnings"] if "EXIF" in text]
    assert warning.startswith("slices_0001-0004: 1 mask ")
