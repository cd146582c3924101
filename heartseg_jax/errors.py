"""The two ways a run ends early on purpose. Anything else that escapes is a bug."""


class UserError(Exception):
    """A user's mistake: one line that names the thing and the fix. `main.py` exits with status 2."""


class GuardStop(Exception):
    """A guard stopped the run: the message says what was seen, the likely cause and what to try. Exit status 3."""
