"""What would fit instead of a refused point: the cheapest change that keeps its node, looked for once for each distinct refusal."""

import json

from conf.run_dir import run_as_dict
from launcher.composition.recorded import flat
from launcher.gate.judge import Judged
from launcher.gate.proposals import alternatives
from launcher.gate.variants import judging_like

# Neither the memory of a run nor any change that is proposed for it depends on these: points that differ in them alone are refused alike.
WITHOUT_BYTES = frozenset({"name", "optim.lr", "optim.warmup", "training.seed"})


class Fits:
    """Remembers what it has found."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, ...]] = {}

    def of(self, refused: Judged) -> tuple[str, ...]:
        """Overrides to append to those of the point; empty where nothing on this node fits. No point gets another node: they share one."""
        read = {key: value for key, value in flat(run_as_dict(refused.run)).items() if key not in WITHOUT_BYTES}
        key = json.dumps(read, sort_keys=True)
        if key not in self.found:
            changes = alternatives(refused.run, refused.facts, judging_like(refused), most=1)
            keeping = [change.overrides for change in changes if not any(text.startswith(("node=", "node.")) for text in change.overrides)]
            self.found[key] = keeping[0] if keeping else ()
        return self.found[key]
