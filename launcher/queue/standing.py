"""What the queue is doing, read only: which entries are shown, why each waits, and whether anybody serves it."""

from dataclasses import dataclass

from launcher.queue import entries as queue
from launcher.queue import scheduler
from launcher.queue.entries import Entry, QueueDir
from launcher.sweep.schedule import Resources, in_order
from launcher.sweep.session import resources_here

SHOWN = 10  # entries that are over


@dataclass(frozen=True)
class Standing:
    entries: tuple[Entry, ...]  # the newest that are over, and all others, by their numbers
    why: dict[int, str]  # of those that wait
    served: bool  # by a living scheduler

    def words(self, entry: Entry) -> str:
        """Why it waits, or how it ended."""
        return self.why.get(entry.number, entry.cause)

    @property
    def waiting(self) -> list[Entry]:
        """In the order in which they begin where nothing comes between: those that are due, then the widest first."""
        waiting = {entry.number: entry for entry in self.entries if entry.state == "waiting"}
        return [waiting[request.number] for request in in_order([scheduler.request_of(entry) for entry in waiting.values()])]

    @property
    def neglected(self) -> bool:
        """Something waits or runs, and nobody would notice its end."""
        return not self.served and any(entry.state in ("waiting", "running") for entry in self.entries)


def standing(place: QueueDir) -> Standing:
    known = queue.entries(place)
    waiting = [entry for entry in known if entry.state == "waiting"]
    busy = scheduler.busy_gpus() if waiting else {}
    held = [entry.on for entry in known if entry.state == "running"]
    mine = {gpu for on in held for gpu in on}
    others = {gpu: who for gpu, who in busy.items() if gpu not in mine}
    free = scheduler.free_now(resources_here(None, queue.slots(place)), held, busy) if waiting else Resources((), 0)
    shown = [*[entry for entry in known if entry.state in queue.OVER][-SHOWN:], *(entry for entry in known if entry.state not in queue.OVER)]
    why = {entry.number: scheduler.reason(entry, waiting, free, others) for entry in waiting}
    return Standing(tuple(shown), why, scheduler.owner_lives(place))
