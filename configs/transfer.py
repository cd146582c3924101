"""The brain encoder transferred to the heart: first frozen under a new decoder, then everything, on phantom patients.

`:full` is the model of 64 to 1024 filters at 256x256 for 50 epochs; it needs an encoder of that width, given with
`--config.pretrained.path=FILE`. A control of the same length, with a frozen encoder of random weights, is trained too:
a score that the control also reaches is not due to the brain's weights.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant, ["full"])
    config.model.levels = 5
    config.model.norm = "encoder"
    config.data.channels = "repeat"  # as the brain model saw its slices: one slice three times
    config.transfer.schedule = "lp_ft"
    config.transfer.control = True
    if variant == "full":
        config.data.size = 256
        config.data.batch_size = 8
        config.data.mm_per_pixel = 1.2
        config.data.phantom.shape = (64, 256, 256)
        config.data.phantom.spacing_mm = (2.25, 1.0, 1.0)
        config.model.width = 64
        config.model.dropout = 0.3
        config.train.epochs = 50
        config.train.learning_rate = 1e-3
        return config
    config.pretrained.path = "brain16"
    config.data.size = 80
    config.data.mm_per_pixel = 3.0
    config.data.batch_size = 8
    config.data.augment = "none"  # more patients cost less than augmented ones: there are 36
    config.data.phantom.train = 36
    config.model.width = 16
    config.train.epochs = 3
    config.train.learning_rate = 4e-3
    return config
