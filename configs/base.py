"""Every field with its default; the other configs change what they must. docs/config.md lists all fields."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from heartseg_jax.config import schema
from heartseg_jax.errors import UserError, suggestion


def get_config(variant: str = "", variants: Sequence[str] = ()) -> ConfigDict:
    """Return the defaults; refuse a variant that is not one of `variants`, those of the config built on this one."""
    if variant and variant not in variants:
        raise UserError(f"the config has no variant '{variant}'{suggestion(variant, variants) or '; it has none'}")
    return schema.defaults()
