"""Pictures as they are meant to be shown: EXIF orientation in every format, and what is no single picture."""

import io

import numpy as np
import pytest
from PIL import Image

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks.palette import labels_to_rgb, read_mask
from heartseg_jax.imaging.pictures import open_picture, picture_header, read_grey, reason_of

SHOWN = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
# By hand, from the standard (CIPA DC-008, "Orientation"): where row 0 and column 0 of the stored picture are shown.
STORED = {
    1: SHOWN,  # row 0 at the top, column 0 at the left
    2: SHOWN[:, ::-1],  # top, right
    3: SHOWN[::-1, ::-1],  # bottom, right
    4: SHOWN[::-1],  # bottom, left
    5: SHOWN.T,  # left, top
    6: SHOWN.T[::-1],  # right, top: the picture has to be turned clockwise
    7: SHOWN.T[::-1, ::-1],  # right, bottom
    8: SHOWN.T[:, ::-1],  # left, bottom
}


def saved(path, stored, orientation, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {"quality": 100, "subsampling": 0}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_every_orientation_in_every_format(tmp_path, name, options, orientation):
    # Blocks of 8: those of JPEG, so that it changes next to nothing.
    path = saved(tmp_path / name, STORED[orientation].repeat(8, 0).repeat(8, 1), orientation, **options)
    image, coloured = read_grey(path)
    assert not coloured
    assert picture_header(path) == ((16, 24), orientation)
    assert image.shape == (16, 24)
    np.testing.assert_allclose(image[4::8, 4::8].astype(int), SHOWN, atol=2)


@pytest.mark.parametrize("orientation", STORED)
def test_masks_and_deep_pictures(tmp_path, orientation):
    labels = SHOWN // 40
    turned = STORED[orientation] // 40
    mask = read_mask(saved(tmp_path / "mask.png", labels_to_rgb(turned), orientation))
    np.testing.assert_array_equal(mask.labels, labels)
    mask = read_mask(saved(tmp_path / "numbers.png", turned.astype(np.uint16), orientation))
    np.testing.assert_array_equal(mask.labels, labels)


def test_half_transparent_images_are_refused(tmp_path):
    image = Image.fromarray(SHOWN)
    for alpha in (255, 128):
        image.putalpha(alpha)
        image.save(tmp_path / "a.png")
        if alpha == 255:
            np.testing.assert_array_equal(read_grey(tmp_path / "a.png")[0], SHOWN)
    with pytest.raises(UserError, match=r"a\.png is half transparent"):
        read_grey(tmp_path / "a.png")


def test_a_header_that_claims_too_much_is_not_decoded():
    content = io.BytesIO()
    Image.new("L", (30, 10)).save(content, "PNG")
    with pytest.raises(UserError, match=r"x\.png is 10 x 30 pixels; slices have 8 to 20"):
        open_picture(content, "x.png", sides=(8, 20))
    with pytest.raises(UserError, match=r"x\.png cannot be read"):
        open_picture(content, "x.png", formats=("JPEG",))


def test_a_reason_repeats_no_path():
    error = OSError("cannot identify image file '/data/Meier_Anna/" + 200 * "x" + "/0.png'")
    assert reason_of(error) == "cannot identify image file"
    assert reason_of(ValueError("it's no picture")) == "it's no picture"
    assert reason_of(ValueError()) == "ValueError"
