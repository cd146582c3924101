"""The original U-Net, trained from scratch: 64, 128 | 256 | 128, 64 filters at 512x512, 75 epochs; for a GPU.

Its receptive field is 44 pixels (`check` lists it beside the sizes of the structures): kept as it was, for comparison.
`:small` is for a CPU: 16 filters, four levels and BatchNorm at 128x128, and 400 steps whatever the dataset.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant, ["small"])
    config.train.learning_rate = 1e-3
    if variant == "small":
        config.data.size = 128
        config.data.batch_size = 8
        config.model.width = 16
        config.model.levels = 4
        config.model.norm = "batch"
        config.train.steps = 400
        config.train.learning_rate = 4e-3
        return config
    # The original's network as the base has it; its own phantoms are larger, so that 512x512 has something to show.
    config.data.phantom.shape = (64, 512, 512)
    config.data.phantom.spacing_mm = (2.25, 0.5, 0.5)
    config.data.phantom.train = 10
    config.data.phantom.validation = 2
    config.data.phantom.test = 2
    return config
