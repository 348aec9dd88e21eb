"""A measured cell of benchmarks/stages/stage_cells.py, judged by the present formulas."""

from pathlib import Path

from benchmarks.memory.stages_on_two import LABELLED, PAIRS, TEXTS
from launcher.composition.compose import compose
from launcher.gate.judge import Judged, judge_run

# What another machine had, or what is not predicted from; the rows are as long as the cutoff in any case.
LEFT_OUT = ("data", "data.folder", "data.sets", "data.template", "data.max_samples", "node", "output", "name", "stage.reward_model", "gate.mode")
BASE = ("model.init", "model.path")  # random weights and those of a file take the same room
JUDGE = "org/name"  # a reward model that is not there yet counts as large as the policy


def judge_stage(record: dict, work: Path) -> Judged:
    """`work` holds data/ (write_samples).

    Raises:
        ConfigError: where the cell would be refused today.
    """
    given = [override for override in record["command"][2:] if override.split("=")[0] not in (*LEFT_OUT, *BASE, "training.fit")]
    stage = record["stage"]
    data = (f"data.folder={work / 'data'}", f"data.sets=[{rows_of(stage)}]", "data.template=chatml")
    judge = (f"stage.reward_model={JUDGE}",) if stage == "ppo" else ()
    place = ("node=h200_141", f"node.gpus={max(1, record['gpus'])}", "gate.mode=off")
    modules = ("sharding.whole_layers=false",) if record["sharding"] == "zero3" else ()  # as it was measured
    base = ("model.init=random", "model.path=null", "training.fit=off", *modules)
    return judge_run(compose([*given, *base, "data=files", *data, *judge, *place]))


def rows_of(stage: str) -> str:
    """A file of write_samples."""
    kinds = {"pairs": PAIRS, "labelled": LABELLED, "texts": TEXTS}
    return f"{next((name for name, stages in kinds.items() if stage in stages), 'samples')}.json"
