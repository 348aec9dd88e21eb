"""Collects the jobs of jobs.jsonl: the cells whose memory was predicted, the commands of the documentation, and every pair of choices.

    python benchmarks/plans/collect.py > benchmarks/plans/jobs.jsonl

jobs.jsonl is committed, so that plans before and after a change are those of the same jobs; collect anew only to add some. groups/ holds the shapes
of the memory grids (write_shapes), which have no preset.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "benchmarks" / "results"
A_RUN = "outputs/RUN/TIME"  # plans.py makes this folder
HERE_INSTEAD = (  # of the paths and the node of the machine that measured
    (re.compile(r"^data\.folder=.*"), "data.folder=data"),
    (re.compile(r"^model\.path=.*/(.+)"), r"model.path=bases/\1"),
    (re.compile(r"^stage\.reward_model=.*"), f"stage.reward_model={A_RUN}"),
    (re.compile(r"^output=.*"), "output=outputs"),
)
COMMAND = re.compile(r"(?:regimen|python -m launcher|torchrun [^`\n]*-m launcher) +(?:plan|train) +([^`\n|]*)")
VARIABLE = re.compile(r'^([A-Z]+)=(?:"(.*)"|\$\(ls -d .*\))$', re.MULTILINE)
LAST_RUN = re.compile(r"\$\(ls -d [^)]*\)")
REGIMES = ("regime=full", "regime=freeze", "regime=lora", "regime=qlora regime.bits=8", "regime=qlora regime.bits=4", "regime=qlora regime.bits=2")
NEEDED = {  # by a stage
    "ppo": "stage.reward_model=org/judge",
    "grpo": "stage.rewards=[brevity] training.effective_batch=8",
    "kto": "training.micro_batch=4",
}
LARGE = "model=llama3.1_8b data=files data.sets=[org/name] node=a100_80"
SMALL = "model=qwen2.5_0.5b data=files data.sets=[my.jsonl] node=a100_80 node.gpus=2"
SLURM = "cluster=slurm cluster.nodes=2 cluster.partition=gpu cluster.time=12:00:00"


def cells() -> Iterator[tuple[str, list[str]]]:
    """Of every predicted cell, and of every measured one, what was given; some were predicted in one set and measured in another."""
    measured: dict[str, dict] = {}
    for path in sorted(RESULTS.rglob("*.jsonl"), reverse=True):
        for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            given = record.get("overrides") or record.get("command", ["regimen", "train"])[2:]
            if given and isinstance(given, list):
                measured[f"{path.stem}/{record.get('cell') or record['probe']}"] = record | {"overrides": given}
    for name, record in measured.items():
        yield name, there(record)
    for path in sorted(RESULTS.rglob("*_predicted.jsonl")):
        for cell in (json.loads(line)["cell"] for line in path.read_text(encoding="utf-8").splitlines()):
            if f"{path.stem.removesuffix('_predicted')}/{cell}" not in measured:
                elsewhere = next(record for name, record in measured.items() if name.split("/", 1)[1] == cell)
                yield f"{path.stem}/{cell}", made_at_random(there(elsewhere))


def there(record: dict) -> list[str]:
    given = [text for text in record["overrides"] if text != "node=auto"]
    for pattern, instead in HERE_INSTEAD:
        given = [text if text == "model.path=null" else pattern.sub(instead, text) for text in given]
    gpus = next((int(text.split("=")[1]) for text in given if text.startswith("cluster.ranks_per_node=")), 1)
    return [*given, "node=h200_141", f"node.gpus={gpus}"]


def made_at_random(overrides: list[str]) -> list[str]:
    """Cells of the first set had no weights in files."""
    others = [text for text in overrides if not text.startswith(("model.init=", "model.path="))]
    return [*others, "model.init=random", "model.path=null"]


def commands() -> Iterator[tuple[str, list[str]]]:
    """The commands of the documentation, without those with `...`; `train` is planned as `plan`."""
    for path in (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))):
        text = re.sub(r" *\\\n *", " ", path.read_text(encoding="utf-8"))
        variables = {name: value or A_RUN for name, value in VARIABLE.findall(text)}
        text = LAST_RUN.sub(A_RUN, text)
        for found in COMMAND.findall(text):
            words = shlex.split(Template(found).substitute(variables), comments=True)
            yield str(path.relative_to(CHECKOUT)), [word for word in words if "=" in word]


def pairs() -> Iterator[list[str]]:
    """Choices of the groups with each other, as --help lists them: every difference that the tables of the launcher know."""
    listed = subprocess.run([sys.executable, "-m", "launcher", "plan", "--help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    groups = {name: choices.split(", ") for name, choices in re.findall(r"^  (\w+) +(.+)$", listed.split("choices:\n")[1], re.MULTILINE)}
    stages = [f"stage={name} {NEEDED.get(name, '')}" for name in groups["stage"]]
    shardings = [f"sharding={name}" for name in groups["sharding"]]
    some = REGIMES[0], REGIMES[2], REGIMES[4]
    yield from crossed(SMALL, ["stage=sft"], REGIMES, shardings)
    yield from crossed(SMALL, stages, some, shardings)
    for sharding in ("ddp", "zero2", "zero3", "fsdp2"):
        yield from crossed(SMALL, [f"optim={name}" for name in groups["optim"]], some[:2], [f"sharding={sharding}"])
    precisions = [f"training.precision={name}" for name in ("bf16_amp", "fp16_amp", "bf16", "fp32")]
    yield from crossed(SMALL, precisions, REGIMES, ("sharding=ddp", "sharding=zero2_offload"))
    yield from crossed(SMALL, [f"training.loss={name}" for name in ("chunked", "fused")], stages, ("regime=full", "regime=qlora"))
    yield from crossed(SMALL, [f"training.attention={name}" for name in ("sdpa", "eager", "varlen")], ("data.packing=true", "data.packing=false"))
    yield from crossed(SMALL, ["training.fit=auto training.effective_batch=32"], stages, ("regime=full", "regime=lora"))
    yield from crossed(SMALL, ["backend=accelerate", SLURM, f"{SLURM} backend=accelerate"], shardings)
    yield from crossed(LARGE, [f"node={name}" for name in groups["node"]], some)
    yield from crossed("data=demo node=h100_80", [f"model={name}" for name in groups["model"]], some)
    on_cpu = "model=demo data=demo node=cpu cluster.ranks_per_node=2 training.precision=fp32"
    yield from crossed(on_cpu, stages, some[:1], ("sharding=ddp", "sharding=zero2", "sharding=fsdp2"))


def sizes() -> Iterator[list[str]]:
    """What cannot be run here: 70B and 8x22B on 4 to 128 nodes of eight cards."""
    nodes = [f"cluster=slurm cluster.nodes={count} node.network=50" for count in (4, 16, 64, 128)]
    shardings = ("sharding=zero3", "sharding=zero3_offload", "sharding=fsdp2")
    for model in ("llama3.1_70b", "mixtral_8x22b"):
        yield from crossed(f"model={model} data=demo node=h100_80 node.gpus=8 node.host_memory=2TB", ("regime=full", "regime=lora"), shardings, nodes)


def crossed(first: str, *columns: "list[str] | tuple[str, ...]") -> Iterator[list[str]]:
    rows = [first]
    for column in columns:
        rows = [f"{row} {choice}" for row in rows for choice in column]
    yield from (row.split() for row in rows)


def main() -> int:
    found: dict[tuple[str, ...], str] = {}
    for source, overrides in (*cells(), *commands(), *(("pairs", pair) for pair in pairs()), *(("sizes", job) for job in sizes())):
        found.setdefault(tuple(overrides), source)
    for overrides, source in found.items():
        print(json.dumps({"from": source, "overrides": overrides}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
