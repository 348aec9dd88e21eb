"""The points of one batch judged, each distinct one once: what no byte depends on is changed in the answer."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.run_values import run_as_dict
from conf.schema import Composed, Run
from launcher.composition.recorded import flat
from launcher.facts.output import refuse_unusable_output
from launcher.gate.judge import Judged, judge_run
from launcher.gate.proposals import alternatives
from launcher.gate.variants import judging_like
from launcher.rules.ranges import check_values
from launcher.sweep.composing import Composer

# Neither the memory and the time of a run nor any rule or change that is proposed for it depends on these, but for the limits of each value.
WITHOUT_BYTES = ("name", "optim.lr", "optim.warmup", "training.seed")


class Judging:
    """Remembers what it has judged. What is free on this machine is looked up once, so it serves for one batch."""

    def __init__(self, config_dirs: Sequence[Path]) -> None:
        self.config_dirs = config_dirs
        self.composer = Composer(config_dirs)
        self.judged: dict[str, Judged] = {}
        self.fits: dict[str, tuple[str, ...]] = {}

    def judge(self, described: Composed) -> Judged:
        """As judge_run.

        Raises:
            ConfigError, DataError: as judge_run.
        """
        key = what_counts(described)
        if key not in self.judged:
            self.judged[key] = judge_run(described)
            return self.judged[key]
        check_values(described)
        twin = self.judged[key]
        run = with_values_of(twin.run, described)
        refuse_unusable_output(run)
        return replace(twin, run=run)

    def what_fits(self, refused: Judged) -> tuple[str, ...]:
        """The cheapest change with which a refused point would fit, as overrides to append to its own; empty where nothing fits on its node.

        No point gets another node: they share one.
        """
        key = what_counts(refused.run)
        if key not in self.fits:
            changes = alternatives(refused.run, refused.facts, judging_like(refused), most=1)
            keeping = [change.overrides for change in changes if not any(text.startswith(("node=", "node.")) for text in change.overrides)]
            self.fits[key] = keeping[0] if keeping else ()
        return self.fits[key]


def what_counts(run: Composed) -> str:
    values = flat(run_as_dict(run))
    return json.dumps({key: value for key, value in values.items() if key not in WITHOUT_BYTES}, sort_keys=True)


def with_values_of(twin: Run, described: Composed) -> Run:
    """The settled run with those values that nothing of it depends on."""
    for group, _, field in (key.partition(".") for key in WITHOUT_BYTES):
        given = getattr(described, group)
        twin = replace(twin, **{group: replace(getattr(twin, group), **{field: getattr(given, field)}) if field else given})
    return twin
