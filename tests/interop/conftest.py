"""Small real Keras models, made and saved once a session."""

import os

os.environ["KERAS_BACKEND"] = "jax"

from typing import NamedTuple

import numpy as np
import pytest

from tests.interop.keras_models import build_unet, skip_names

FORMS = ("keras", "h5", "weights.h5")


class Saved(NamedTuple):
    """A Keras model, its width, and the files it was saved to by form."""

    model: object
    width: int
    files: dict


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Models of widths 4, 8 and 16, whose layers are not numbered from 0: width -> Saved."""
    folder = tmp_path_factory.mktemp("keras")
    skip_names()
    made = {}
    for width, levels, classes, decoder_norm in ((4, 3, 1, True), (8, 2, 9, False), (16, 2, 3, True)):
        model = build_unet(width, levels, classes, decoder_norm=decoder_norm, seed=width)
        files = {form: folder / f"net{width}.{form}" for form in FORMS}
        for form, path in files.items():
            model.save_weights(path) if form == "weights.h5" else model.save(path)
        made[width] = Saved(model, width, files)
    return made


@pytest.fixture
def image():
    """Two colour images in 0..1, [2, 32, 32, 3]."""
    return np.random.default_rng(3).random((2, 32, 32, 3), dtype=np.float32)
