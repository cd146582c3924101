"""Every field with its default; the other configs change what they must. docs/config.md lists all fields."""

from ml_collections import ConfigDict

from heartseg_jax.config import schema


def get_config(variant: str = "") -> ConfigDict:
    del variant
    return schema.defaults()
