"""Label maps, colour masks and what their values mean."""
