"""Trains only on phantoms of randomised contrast: a starting point with three labelled patients, or none.

Intensities are scaled by percentiles, so that 8-bit pictures of unknown window can be scored as well as CT in HU.
Phantoms have the field of view of whole-chest slices; the augmentation's scales cover narrower ones.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant)
    config.data.size = 96
    config.data.mm_per_pixel = 0.0  # pictures have no spacing: every slice's longer side is scaled to size
    config.data.batch_size = 8
    config.data.channels = "repeat"  # scattered slices have no neighbours
    config.data.normalise = "percentile"
    config.data.augment = "randomised"
    config.data.phantom.train = 60
    config.data.phantom.validation = 3
    config.data.phantom.test = 6
    config.data.phantom.shape = (32, 96, 96)
    config.data.phantom.spacing_mm = (4.5, 3.2, 3.2)
    config.data.phantom.randomised_contrast = True
    config.model.width = 16
    config.model.levels = 5
    config.model.norm = "batch"
    config.train.epochs = 8
    config.train.learning_rate = 4e-3
    return config
