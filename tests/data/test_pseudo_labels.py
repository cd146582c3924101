"""Labels that stand for several structures, told apart by a model's probabilities."""

import numpy as np

from benchmarks.pseudo_labels import filled_in
from heartseg_jax.anatomy import IGNORED


def test_merged_labels_are_told_apart_where_the_model_is_sure():
    # 0 stands for background and 4, 3 for 1 to 3; the others for themselves.
    merge = (0, 3, 3, 3, 0, 5, 6, 7, 8)
    probabilities = np.zeros((5, 9), np.float32)
    probabilities[0, [0, 4]] = 0.2, 0.7  # 4 by 78 %: unsure
    probabilities[1, [0, 4, 8]] = 0.03, 0.87, 0.1  # 4 by 97 %, of what 0 stands for
    probabilities[2, 1] = 1.0  # 5 stands for itself, whatever the model says
    probabilities[3, [1, 2, 3]] = 0.01, 0.97, 0.02
    probabilities[4, 5] = 1.0  # none of 1 to 3 has any
    found = filled_in(np.array([0, 0, 5, 3, 3], np.uint8), merge, probabilities, 0.9)
    assert found.tolist() == [IGNORED, 4, 5, 2, IGNORED]
    assert found.dtype == np.uint8
