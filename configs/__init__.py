"""The configs that come with the project; each file has `get_config(variant)`."""
