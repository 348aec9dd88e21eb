"""Files of a run are for its owner alone."""

import os

OWNER_ALONE = 0o077


def keep_private() -> None:
    """From now on, what this process and its children write can be read by their user alone (umask(2))."""
    os.umask(OWNER_ALONE)
