"""The original U-Net, trained from scratch: 64, 128 | 256 | 128, 64 filters at 512x512, 75 epochs.

Its receptive field is 44 pixels (`check` shows it beside the structures' sizes): kept as it was, for comparison.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant)
    # The original's network as the base has it; its own phantoms are larger, so that 512x512 has something to show.
    config.data.phantom.shape = (64, 512, 512)
    config.data.phantom.spacing_mm = (2.25, 0.5, 0.5)
    config.data.phantom.train = 10
    config.data.phantom.validation = 2
    config.data.phantom.test = 2
    config.train.learning_rate = 1e-3
    return config
