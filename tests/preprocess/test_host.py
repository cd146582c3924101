"""Windows and neighbours, on the host."""

import numpy as np

from heartseg_jax.preprocess.host import neighbours, windows_of
from tests.preprocess.specs import WINDOW, spec


def test_percentiles_are_taken_over_what_is_brighter_than_air():
    image = np.full((1, 10, 10), -1000, np.int16)
    image[0, 0] = np.arange(10) * 10
    found = windows_of(spec(window=None, percentiles=(0.0, 50.0)), image)
    assert found.tolist() == [[[0.0, 45.0]] * 3]
    [[[low, high]]] = windows_of(spec("0", window=None), np.full((1, 4, 4), 7, np.int16))
    assert (low, high) == (7.0, 8.0)


def test_each_channel_has_a_window_of_its_own():
    image = np.arange(101, dtype=np.int16).reshape(1, 1, 101)
    mixed = spec("0:-200..600,0", window=None, percentiles=(10.0, 90.0))
    assert windows_of(mixed, image).tolist() == [[[-200.0, 600.0], [10.0, 90.0]]]
    assert windows_of(spec(), image).tolist() == [[list(WINDOW)] * 3]


def test_neighbours_end_in_the_last_slice_and_scattered_slices_have_none():
    shown = spec("-2,0,1")
    assert [neighbours(shown, z, 6, True) for z in (0, 1, 3, 5)] == [[0, 0, 1], [0, 1, 2], [1, 3, 4], [3, 5, 5]]
    assert neighbours(shown, 3, 6, False) == [3, 3, 3]
    assert neighbours(spec("repeat"), 3, 6, True) == [3]  # one plane where all channels show the same slice
