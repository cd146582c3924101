"""The configurations that come with the project; each file has `get_config(variant)`."""
