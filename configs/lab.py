"""The laboratory: does the brain model help? For the verb `lab`, with `--config.data.path=DATASET`.

Every arm has the same steps, slices, augmentation and learning rate; each patient is left out in turn.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant)
    config.data.size = 64
    config.data.mm_per_pixel = 0.0
    config.data.batch_size = 4
    config.data.channels = "repeat"
    config.data.normalise = "percentile"
    config.data.augment = "none"  # the few slices are learned sooner, and equally by every arm
    config.model.width = 16
    config.model.levels = 5
    config.model.norm = "encoder"
    config.train.steps = 420
    config.train.learning_rate = 3e-3
    return config
