"""A small U-Net on phantom patients: trained, scored on patients it never saw and drawn, in minutes on a CPU."""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant)
    config.data.size = 80
    config.data.mm_per_pixel = 3.0
    config.data.batch_size = 8
    config.data.channels = "adjacent"
    config.data.augment = "none"  # more patients cost less than augmented ones: there are 36
    config.data.phantom.train = 36
    config.model.width = 16
    config.model.levels = 4
    config.model.norm = "batch"
    config.train.epochs = 2
    config.train.optimizer = "muon"
    config.train.learning_rate = 1.6e-2
    config.train.warmup_steps = 10
    return config
