"""Several checks that do not depend on each other: what they refuse is said at once, so that a user fixes it in one go."""

from collections.abc import Callable

from launcher.errors import ConfigError


def together(*checks: Callable[[], None]) -> None:
    """Make every check.

    Raises:
        ConfigError: with a line for each check that refused.
    """
    refused = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise ConfigError("\n".join(dict.fromkeys(str(error) for error in refused)))
