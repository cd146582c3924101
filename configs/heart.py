"""The heart model that ships: synthesised and real slices together, in two runs (docs/heart_model.md).

`:base` learns from images made from tissue maps and from adults of whom three structures are labelled. Without the
variant, training goes on from there with the few patients of whom all eight are. No slice of those is in the first run,
so that each of them can be left out in turn at the cost of the second run alone.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant, ["base"])
    config.data.path = "datasets/anatomy,datasets/adults"
    config.data.shares = ("0.6", "0.4")
    config.data.size = 160
    config.data.detail = 2
    config.data.closer = ("0.5", "0.7")
    config.data.across_mm = 2.0
    config.data.mm_per_pixel = 0.0  # pictures have no spacing
    config.data.batch_size = 8
    config.data.channels = "0"
    config.data.normalise = "percentile"
    config.data.augment = "heart_flow"
    config.model.width = 16
    config.model.levels = 5
    config.model.fold = 2
    config.model.norm = "batch"
    config.train.optimizer = "muon"
    config.train.learning_rate = 1.2e-2
    config.train.weight_decay = 0.01
    config.train.ema_decay = 0.995
    config.train.steps = 3500
    config.checkpoint.every_steps = 500
    config.log.evaluate_every_steps = 3500
    config.log.every_steps = 50
    if variant == "base":
        return config
    config.data.path += ",datasets/chd"
    config.data.shares = ("0.35", "0.2", "0.45")
    config.pretrained.path = "runs/heart-base"
    config.pretrained.load = "all"
    config.train.learning_rate = 6e-3
    config.train.ema_decay = 0.98
    config.train.steps = 300
    config.log.evaluate_every_steps = 300
    return config
