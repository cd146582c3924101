"""One file for each command of `main.py`: its flags and its `run()`."""
