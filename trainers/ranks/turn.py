"""A run that was started before its GPUs are free: its ranks load their libraries meanwhile, and touch no GPU before they may."""

import time

from conf.constants import HELD
from conf.run_dir import RunDir
from trainers.errors import Stopped
from trainers.ranks.doing import say_doing
from trainers.ranks.life import LIFE
from trainers.ranks.place import Place

POLL_SECONDS = 0.05


def wait_for_turn(run_dir: RunDir, place: Place) -> None:
    """Until whoever started the run has removed its file `hold`; at once where there is none.

    Raises:
        Stopped: where the run is asked to stop before that.
    """
    if not run_dir.hold.exists():
        return
    say_doing(run_dir, place, HELD)
    while run_dir.hold.exists():
        if run_dir.stop.exists():
            raise Stopped(asked=True)
        LIFE.move()
        time.sleep(POLL_SECONDS)
