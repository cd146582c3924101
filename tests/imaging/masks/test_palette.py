"""Exact decoding, the auditor, the user's palettes. Damaged masks are in test_repair."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks import palette
from heartseg_jax.imaging.pictures import open_picture

EVERY_LABEL = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 8, 255]], np.uint8)
# Written out, not taken from the table under test.
EVERY_COLOUR = np.array(
    [
        [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (255, 255, 0)],
        [(0, 255, 0), (128, 0, 128), (0, 255, 255), (255, 165, 0), (255, 0, 255)],
    ],
    np.uint8,
)


def save(path, array, mode=None):
    Image.fromarray(array, mode).save(path) if mode else Image.fromarray(array).save(path)
    return path


def test_colours_by_hand():
    np.testing.assert_array_equal(palette.labels_to_rgb(EVERY_LABEL), EVERY_COLOUR)
    labels, off = palette.rgb_to_labels(EVERY_COLOUR)
    np.testing.assert_array_equal(labels, EVERY_LABEL)
    assert not off.any()
    with pytest.raises(ValueError, match="labels must be"):
        palette.labels_to_rgb(np.array([[9]], np.uint8))


def test_decoding_is_exact():
    labels, off = palette.rgb_to_labels(np.array([[(255, 0, 1), (127, 0, 128), (0, 0, 0)]], np.uint8))
    np.testing.assert_array_equal(labels, [[255, 255, 0]])
    np.testing.assert_array_equal(off, [[True, True, False]])


def test_forms_of_png(tmp_path):
    rgb = EVERY_COLOUR
    alpha = np.full((2, 5, 1), 255, np.uint8)
    alpha[0, 1] = 0  # Transparent white is background, not the aorta.
    indexed = Image.fromarray(rgb).convert("P", palette=Image.Palette.ADAPTIVE, colors=10)
    indexed.save(tmp_path / "indexed.png")
    np.testing.assert_array_equal(palette.read_mask(save(tmp_path / "rgb.png", rgb)).labels, EVERY_LABEL)
    np.testing.assert_array_equal(palette.read_mask(tmp_path / "indexed.png").labels, EVERY_LABEL)
    np.testing.assert_array_equal(palette.read_mask(save(tmp_path / "grey.png", EVERY_LABEL)).labels, EVERY_LABEL)
    deep = save(tmp_path / "grey16.png", EVERY_LABEL.astype(np.uint16))
    np.testing.assert_array_equal(palette.read_mask(deep).labels, EVERY_LABEL)
    rgba = palette.read_mask(save(tmp_path / "rgba.png", np.concatenate([rgb, alpha], axis=-1)))
    expected = EVERY_LABEL.copy()
    expected[0, 1] = 0
    np.testing.assert_array_equal(rgba.labels, expected)


def test_half_transparent_is_off_the_palette(tmp_path):
    mask = palette.read_mask(save(tmp_path / "a.png", np.array([[(255, 0, 0, 128)]], np.uint8)))
    assert mask.off.all()


@pytest.mark.parametrize(
    ("values", "message"), [([0, 17, 34], "17, 34"), ([0, 255], "black and white"), ([0, 9], "values 9")]
)
def test_grey_that_is_neither_is_refused(tmp_path, values, message):
    path = save(tmp_path / "a.png", np.array([values], np.uint8))
    with pytest.raises(UserError, match=message):
        palette.read_mask(path)
    colours = {(v, v, v): k for k, v in enumerate(values)}
    np.testing.assert_array_equal(palette.read_mask(path, colours).labels, [range(len(values))])


def test_unreadable_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image at all")
    with pytest.raises(UserError, match="cannot be read as an image"):
        palette.read_mask(tmp_path / "a.png")
    whole = save(tmp_path / "b.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as an image"):
        palette.read_mask(tmp_path / "b.png")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_file_of_several_pictures_is_refused(tmp_path, name):
    first, second = Image.new("P", (4, 4), 0), Image.new("P", (4, 4), 1)
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(UserError, match="holds 2 pictures"):
        open_picture(tmp_path / name)


def mask_of(rgb):
    return palette.Mask(*palette.rgb_to_labels(rgb), rgb)


def test_audit_counts_and_refuses():
    rgb = np.zeros((10, 10, 3), np.uint8)
    rgb[:4] = (255, 0, 0)
    rgb[0, :4] = (254, 0, 0)
    rgb[0, 4] = (9, 9, 9)
    one = palette.audit("one.png", mask_of(rgb))
    assert (one.foreground, one.off, one.fraction) == (40, 5, 0.125)
    assert one.colours == {(254, 0, 0): 4, (9, 9, 9): 1}
    clean = palette.audit("clean.png", mask_of(np.zeros((4, 4, 3), np.uint8)))
    assert clean.fraction == 0.0
    palette.check_audits([one, clean], 0.125)
    with pytest.raises(UserError) as error:
        palette.check_audits([clean, one], 0.12)
    for part in ("1 of 2 masks", "one.png (5 of 40 pixels, 12.5%)", "#fe0000 (4)", "--repair", "--colours"):
        assert part in str(error.value)
    assert "clean.png" not in str(error.value)
    assert "\n" not in str(error.value)


def test_palette_map(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(
        json.dumps({"#0A0b0C": "left_atrium", "1,2,3": 3, "[4, 5, 6]": "LV", "7,7,7": "ignored", "9,9,9": "Vena cava"})
    )
    assert palette.read_palette(path) == {
        (10, 11, 12): 2,
        (1, 2, 3): 3,
        (4, 5, 6): 3,
        (7, 7, 7): 255,
        (9, 9, 9): 8,
        (0, 0, 0): 0,
    }
    path.write_text(json.dumps([[[0, 0, 0], 1], [[255, 255, 255], "background"]]))
    assert palette.read_palette(path) == {(0, 0, 0): 1, (255, 255, 255): 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "must be an object"),
        ('"red"', "must be an object"),
        ('["ab"]', "must be an object"),
        ('{"red": 1}', "'red' is no colour"),
        ('{"#ff00": 1}', "is no colour"),
        ('{"256,0,0": 1}', "is no colour"),
        ('{"' + "9" * 5000 + ',0,0": 1}', "is no colour"),
        ("[" * 100_000, "cannot be read"),
        ('{"1,2,3": 9}', "9 is no label"),
        ('{"1,2,3": true}', "True is no label"),
        ('{"1,2,3": 1.5}', "1.5 is no label"),
        ('{"1,2,3": "left_atrum"}', "did you mean left_atrium"),
        ('{"1,2,3": 1, "#010203": 2}', "two meanings"),
        ('{"1,2,3": 1, "1,2,3": 2}', "two meanings"),
    ],
)
def test_palette_maps_that_are_refused(tmp_path, text, message):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(UserError, match=message):
        palette.read_palette(tmp_path / "map.json")


def test_real_masks_decode_to_their_labels(shared):
    folder = shared / "data" / "heart_ct"
    for path in sorted((folder / "masks").glob("*.png")):
        mask = palette.read_mask(path)
        assert not mask.off.any()
        np.testing.assert_array_equal(mask.labels, np.asarray(Image.open(folder / "labels" / path.name)))


# What the auditor must say of each form and damage of a mask: decoded exactly, refused with these words, or, where it
# is repaired, which share of the whole mask agrees at the least. An invented pixel is one of a structure that is not
# truly within three pixels.


def as_rgb(image, path):
    image.save(path)


def as_indexed(image, path):
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(path)


def as_rgba(image, path):
    image.convert("RGBA").save(path)


def as_transparent(image, path):
    pixels = np.asarray(image.convert("RGBA")).copy()
    pixels[..., 3] = np.where(pixels[..., :3].any(axis=-1), 255, 0)
    Image.fromarray(pixels).save(path)


def png(path, pixels, bits, interlaced=False):
    """Write RGB pixels as a PNG by hand, since Pillow writes neither 16 bits of colour nor Adam7."""
    height, width = pixels.shape[:2]
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [pixels[y::dy, x::dx] for y, x, dy, dx in starts] if interlaced else [pixels]
    lines = [b"\0" + row.tobytes() for part in passes if part.size for row in part]

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, int(interlaced))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"".join(lines)))
        + chunk(b"IEND", b"")
    )


def as_16_bits(image, path):
    png(path, (np.asarray(image).astype(np.uint16) * 257).astype(">u2"), 16)


def as_16_bits_never_scaled(image, path):
    png(path, np.asarray(image).astype(">u2"), 16)


def as_interlaced(image, path):
    png(path, np.asarray(image), 8, interlaced=True)


def as_jpeg(image, path):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    Image.open(stream).save(path)


def as_antialiased(image, path):
    height, width = np.asarray(image).shape[:2]
    smaller = image.resize((3 * width // 4, 3 * height // 4), Image.Resampling.BILINEAR)
    smaller.resize((width, height), Image.Resampling.BILINEAR).save(path)


FORMS = {
    "exact": (as_rgb, "decoded"),
    "palette-indexed": (as_indexed, "decoded"),
    "RGBA": (as_rgba, "decoded"),
    "RGBA, background transparent": (as_transparent, "decoded"),
    "16-bit": (as_16_bits, "decoded"),
    "interlaced": (as_interlaced, "decoded"),
    "16-bit, never scaled up": (as_16_bits_never_scaled, "all below 256 or none at all"),
    "JPEG, quality 75": (as_jpeg, 0.99),
    "antialiased (bilinear)": (as_antialiased, 0.99),
}


@pytest.mark.parametrize(("write", "outcome"), FORMS.values(), ids=FORMS)
def test_real_masks_in_every_form(shared, tmp_path, write, outcome):
    folder = shared / "data" / "heart_ct"
    for name in ("1001_63.png", "1002_51.png", "1005_117.png", "1007_195.png"):
        truth = np.asarray(Image.open(folder / "labels" / name))
        path = tmp_path / name
        write(Image.open(folder / "masks" / name).convert("RGB"), path)
        if isinstance(outcome, str) and outcome != "decoded":
            with pytest.raises(UserError, match=outcome):
                palette.read_mask(path)
            continue
        mask = palette.read_mask(path)
        if outcome == "decoded":
            np.testing.assert_array_equal(mask.labels, truth)
            assert not mask.off.any()
            continue
        with pytest.raises(UserError, match=rf"{name} \(.*--repair"):
            palette.check_audits([palette.audit(name, mask)])
        repaired = palette.repair_mask(name, mask)
        assert (repaired == truth).mean() >= outcome
        near = {k: ndimage.binary_dilation(truth == k, np.ones((7, 7))) for k in range(1, 9)}
        assert not any((near_not & (repaired == k)).any() for k, near_not in ((k, ~near[k]) for k in near))
