"""Phantom patients and a small U-Net: trained, scored on patients it never saw and drawn, in minutes on a CPU."""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant)
    config.data.size = 80
    config.data.mm_per_pixel = 3.0
    config.data.batch_size = 8
    config.data.channels = "adjacent"
    config.data.augment = "none"
    config.model.width = 16
    config.model.levels = 5
    config.model.norm = "batch"
    config.train.epochs = 8
    config.train.learning_rate = 3e-3
    config.log.evaluate_every_epochs = 2
    return config
