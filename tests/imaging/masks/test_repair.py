"""Repair of damaged masks: nothing is invented, and what was there comes back."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from heartseg_jax.errors import UserError
from heartseg_jax.imaging.masks import palette
from heartseg_jax.imaging.masks.repair import REACH


def repaired(rgb):
    return palette.repair_mask("a.png", palette.Mask(*palette.rgb_to_labels(rgb), rgb))


def as_jpeg(image, quality=75):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def nearest_colour(rgb):
    colours = np.array([c for c, label in palette.STANDARD.items() if label != 255], int)
    return ((rgb[None].astype(int) - colours[:, None, None]) ** 2).sum(-1).argmin(0)


def invented(result, truth):
    """Pixels of a structure that isn't within three pixels in truth."""
    near = {k: ndimage.binary_dilation(truth == k, np.ones((7, 7))) for k in range(1, 9)}
    return sum(int(((result == k) & ~near[k]).sum()) for k in range(1, 9))


def three_regions():
    labels = np.zeros((48, 48), np.uint8)
    labels[4:44, 4:24], labels[4:44, 24:44] = 2, 3
    return labels


def test_the_mitral_border_does_not_turn_into_aorta():
    labels = three_regions()
    rgb = palette.labels_to_rgb(labels).astype(np.float32)
    rgb = np.rint((rgb + np.roll(rgb, 1, 1)) / 2).astype(np.uint8)
    assert (palette.rgb_to_labels(rgb)[0] == 6).sum() == 40  # Exactly purple, all along the border.
    result = repaired(rgb)
    assert set(np.unique(result)) == {0, 2, 3}
    # Each pixel shows half of itself and half of its left neighbour: either is right.
    assert ((result == labels) | (result == np.roll(labels, 1, 1))).all()


@pytest.mark.parametrize(("label", "wrong"), [(1, 6), (4, 8)])
def test_rims_do_not_turn_into_others(label, wrong):
    y, x = np.mgrid[:64, :64]
    labels = np.where((y - 32) ** 2 + (x - 32) ** 2 < 400, label, 0).astype(np.uint8)
    labels[2:8, 2:8] = wrong  # It is in the file, but far away.
    image = Image.fromarray(palette.labels_to_rgb(labels)).filter(ImageFilter.GaussianBlur(1))
    assert invented(nearest_colour(np.asarray(image)), labels) > 20
    result = repaired(np.asarray(image))
    assert invented(result, labels) == 0
    assert (result == labels).mean() > 0.99


def test_an_intact_mask_stays():
    labels = three_regions()
    labels[10, 10] = 7  # A single pixel, which a repair would take away.
    np.testing.assert_array_equal(repaired(palette.labels_to_rgb(labels)), labels)


def test_another_palette_is_not_repaired():
    rgb = np.zeros((48, 48, 3), np.uint8)
    rgb[4:44, 4:44] = (100, 60, 20)
    with pytest.raises(UserError, match="cannot be repaired.*--colours"):
        repaired(rgb)


def test_repair_with_the_users_palette():
    mine = {(0, 0, 0): 0, (10, 200, 90): 5, (200, 30, 160): 2}
    rgb = np.zeros((48, 48, 3), np.uint8)
    rgb[4:44, 4:24], rgb[4:44, 24:44] = (10, 200, 90), (200, 30, 160)
    damaged = as_jpeg(Image.fromarray(rgb))
    labels, off = palette.rgb_to_labels(damaged, mine)
    result = palette.repair_mask("a.png", palette.Mask(labels, off, damaged), mine)
    truth = palette.rgb_to_labels(rgb, mine)[0]
    assert (result == truth).mean() > 0.99


def bilinear(size):
    def damage(image, labels):
        smaller = Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)), np.asarray(smaller)

    return damage


DAMAGES = {
    "jpeg 75": lambda image, labels: (as_jpeg(image), labels),
    "jpeg 50": lambda image, labels: (as_jpeg(image, 50), labels),
    "bilinear 384": bilinear(384),
    "bilinear 700": bilinear(700),
    "blur 1": lambda image, labels: (np.asarray(image.filter(ImageFilter.GaussianBlur(1))), labels),
}


# Measured over all 21 masks (mean of whole-mask, and of foreground agreement): JPEG 75 0.9998, 0.997;
# JPEG 50 0.9996, 0.994; bilinear to 384 0.9990, 0.985 and to 700 0.9997, 0.995; blur 0.9997, 0.996.
@pytest.mark.parametrize(
    ("damage", "every"),
    [("jpeg 75", 10), ("bilinear 384", 10)] + [pytest.param(d, 1, marks=pytest.mark.slow) for d in DAMAGES],
)
def test_real_masks_are_repaired(shared, damage, every):
    folder = shared / "data" / "heart_ct"
    inside, by_nearest = [], 0
    for path in sorted((folder / "masks").glob("*.png"))[::every]:
        labels = np.asarray(Image.open(folder / "labels" / path.name))
        rgb, truth = DAMAGES[damage](Image.open(path), labels)
        result = repaired(rgb)
        assert (result == truth).mean() >= 0.99
        assert invented(result, truth) == 0
        by_nearest += invented(nearest_colour(rgb), truth)
        either = (result > 0) | (truth > 0)
        inside.append((result == truth)[either].mean())
    assert np.mean(inside) > 0.98
    assert by_nearest > 0, "the damage must be one that nearest colour falls for"
    assert REACH == 3
