"""Folders of slice images with colour masks -> a dataset folder."""


def prepare_png_pairs(*args, **kwargs):  # noqa: D103
    raise NotImplementedError
