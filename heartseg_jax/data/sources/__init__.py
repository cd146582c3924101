"""One file for each format that `prepare` reads, and the writer that makes datasets of them."""
