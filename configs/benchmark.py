"""What the shipped networks cost on this machine, for the verb `benchmark`: about two minutes on two CPU cores.

`:full` is the network of 31 million parameters at a size that a CPU can train; `:gpu` the same at its own size, and the
original's at 512x512, in bfloat16. `--config.benchmark.sizes=64,128` and the like measure a grid (docs/performance.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    config = base.get_config(variant, ["full", "gpu"])
    config.benchmark.configs = ("configs/quickstart.py", "configs/transfer.py", "configs/scratch.py:small")
    if variant == "full":
        config.benchmark.configs = ("configs/transfer.py:full",)
        config.benchmark.sizes = ("128",)
        config.benchmark.batches = ("2",)
    if variant == "gpu":
        config.benchmark.configs = ("configs/transfer.py:full", "configs/scratch.py")
        config.benchmark.batches = ("8", "32")
        config.benchmark.dtypes = ("bfloat16",)
        config.benchmark.seconds = 5.0
    return config
