"""The brain model: tumour against the rest, for the encoder that configs/transfer.py transfers to the heart.

    python main.py prepare --source=image_mask_zip --input=brain.zip --output=data/brain
    python main.py --config=configs/brain.py --config.data.path=data/brain
    python main.py --config=configs/transfer.py:full --config.pretrained.path=runs/brain

`:small` has 16 filters at 128x128, for a CPU in about an hour (3,064 slices, 0.9 s per step on one core); its encoder
fits configs/transfer.py unchanged. The network keeps its nine channels: all but the tumour's count as background.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant, ["small"])
    config.data.task = "tumour"
    config.data.size = 256
    config.data.batch_size = 16
    config.data.channels = "repeat"  # scattered slices have no neighbours
    config.data.normalise = "percentile"  # 8-bit images of unknown window are scaled by percentiles in any case
    config.data.augment = "default"  # rotation, scale, shift, intensity; no flips, as for the heart
    config.model.levels = 5
    config.model.norm = "encoder"
    config.model.dropout = 0.3
    config.train.epochs = 40
    config.train.learning_rate = 1e-3
    if variant == "small":
        config.data.size = 128
        config.data.batch_size = 8
        config.model.width = 16
        config.model.dropout = 0.0
        config.train.epochs = 12
        config.train.learning_rate = 2e-3
    return config
