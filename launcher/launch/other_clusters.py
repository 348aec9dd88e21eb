"""A planned run as a file for a cluster that is not Slurm: a task of SkyPilot or a TrainJob of Kubeflow. Nothing is submitted.

Each node of the job starts torchrun once, and torchrun's ranks meet in the output folder (torchrun_door.py): there the run is judged again, on the
node where it trains. The given overrides pass as words of one command; no text of a configuration is executed.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from conf.constants import BYTE_TOKENIZER
from conf.data_sets import evaluation_sources, sources_of
from conf.hub import is_folder
from conf.schema import Run
from conf.sizes import MIB
from launcher.command import TRACKER_SECRETS
from launcher.errors import ConfigError
from launcher.launch.backends import HANDLED, NO_RESTARTS, TORCHRUN
from launcher.launch.plan import LaunchPlan, planned_memory
from launcher.memory.constants import GIB

PORT = 29500  # torchrun's own default
TRAIN = ("-m", "launcher", "train")
SECRETS = ("HF_TOKEN", *TRACKER_SECRETS)  # what a run may need of the site; a job names them and never holds their values
SECRET = "regimen"  # the Secret of Kubernetes that holds them
ANNOTATION = "regimen/run"
BY_TORCHRUN = ("cluster.nodes=", "cluster.ranks_per_node=")  # which the job's torchrun states
# The accelerators of SkyPilot's catalogue that are the cards of conf/node.
ACCELERATORS = {
    "a100_40": "A100",
    "a100_80": "A100-80GB",
    "h100_80": "H100",
    "h200_141": "H200",
    "l40s_48": "L40S",
    "rtx4090_24": "RTX4090",
    "t4_16": "T4",
    "v100_32": "V100-32GB",
}
SKYPILOT_RUN = 'head=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)\nexec {command}\n'
NODE_OF_SKYPILOT = '--nnodes="$SKYPILOT_NUM_NODES" --node-rank="$SKYPILOT_NODE_RANK" --master-addr="$head"'


@dataclass(frozen=True)
class Job:
    """What both kinds of file say."""

    plan: LaunchPlan
    words: tuple[str, ...]  # overrides of `regimen train`
    image: str  # of a container that has regimen installed

    @property
    def nodes(self) -> int:
        return self.plan.run.cluster.nodes

    @property
    def ranks_per_node(self) -> int:
        return self.plan.run.cluster.ranks_per_node

    @property
    def secrets(self) -> list[str]:
        return [name for name in SECRETS if name not in self.plan.command.withheld]

    @property
    def memory(self) -> int:
        """Bytes of one node, as a job of Slurm would ask for."""
        return int(planned_memory(self.plan.judged).removesuffix("M")) * MIB


# A reference of an image: host and port, path, tag, digest (github.com/distribution/reference).
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9_][A-Za-z0-9._-]*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?")


def rendered(kind: str, plan: LaunchPlan, overrides: Sequence[str], image: str | None) -> str:
    """The YAML file of that kind.

    Raises:
        ConfigError: for a run that cannot be a job there.
    """
    if image is None:
        raise ConfigError(f"--as {kind} needs an image in which regimen is installed. Name it: --image REGISTRY/NAME:TAG")
    if not IMAGE.fullmatch(image):
        raise ConfigError(f"--image {image!r} is no name of an image. It looks like REGISTRY/NAME:TAG, without https:// and without a password.")
    job = Job(plan, passed_on(kind, plan, overrides), image)
    return yaml.dump(KINDS[kind](job), Dumper=Readable, sort_keys=False, width=10**6, allow_unicode=True)


class Readable(yaml.SafeDumper):
    """Texts of several lines stand as they are."""


Readable.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def passed_on(kind: str, plan: LaunchPlan, overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides that hold on any machine, and the folder that all nodes of the job share."""
    run, local = plan.run, [text for text in overrides if "=" not in text]
    if local:
        raise ConfigError(f"--as {kind}: {local[0]} is a file of this machine, which the image does not have. Give its keys as overrides.")
    if run.cluster.name != "local":
        raise ConfigError(f"--as {kind} renders a job of another cluster, so cluster={run.cluster.name} does not apply. Leave it out.")
    if any(text.startswith("resume=") for text in overrides):
        raise ConfigError(f"--as {kind} renders a new run. To go on with one, give the resume= to the command of the rendered file.")
    if run.backend.name != "torchrun":
        raise ConfigError(f"backend={run.backend.name}: the job of --as {kind} starts torchrun itself. Set backend=torchrun.")
    if not Path(run.output).is_absolute():
        raise ConfigError(
            f"output={run.output} is a folder of the container, which is lost when the job ends. Set output to an absolute path on a volume that all "
            "nodes of the job share."
        )
    for key, path in local_paths(run):
        if not Path(path).is_absolute():
            raise ConfigError(
                f"{key}: {path} is a path relative to the working folder, which is another one in the job. Give an absolute path, which "
                "must exist on every node of the job: in the image, or on a volume."
            )
    return tuple(text for text in overrides if not text.startswith(BY_TORCHRUN))


def local_paths(run: Run) -> Iterator[tuple[str, str]]:
    """(key, path) of what the run reads that is neither built in nor on the hub."""
    for source in sources_of(run.data.sets, run.data):
        if source.file is not None:
            yield "data.sets", str(source.file)
    for source in evaluation_sources(run.data):
        if source.file is not None:
            yield "data.evaluation_sets", str(source.file)
    adapter = getattr(run.regime, "adapter", None)
    if run.data.cache is not None:
        yield "data.cache", run.data.cache
    named = {"model.path": run.model.path, "model.tokenizer": run.model.tokenizer, "stage.reward_model": getattr(run.stage, "reward_model", None)}
    yield from ((key, path) for key, path in named.items() if path is not None and path != BYTE_TOKENIZER and is_folder(path))
    if adapter is not None:
        yield "regime.adapter", adapter


def skypilot(job: Job) -> dict[str, Any]:
    """A task for `sky launch`; schema: sky/utils/schemas.py, get_task_schema."""
    options = f"--nproc-per-node={job.ranks_per_node} --master-port={PORT} {NO_RESTARTS}"
    command = f"python -m {TORCHRUN} {NODE_OF_SKYPILOT} {options} {shlex.join([*TRAIN, *job.words])}"
    secrets = {"secrets": dict.fromkeys(job.secrets)} if job.secrets else {}
    return {
        "name": name_of(job),
        "num_nodes": job.nodes,
        "resources": {**accelerators(job), "memory": f"{ceil(job.memory / GIB)}+", "image_id": f"docker:{job.image}"},
        "envs": dict([HANDLED]),
        **secrets,
        "run": SKYPILOT_RUN.format(command=command),
    }


def accelerators(job: Job) -> dict[str, str]:
    node = job.plan.run.node
    if node.gpus == 0:
        return {}
    if node.name not in ACCELERATORS:
        raise ConfigError(
            f"node={node.name} has no name among SkyPilot's accelerators that is known here. Set node to one of {', '.join(ACCELERATORS)}."
        )
    return {"accelerators": f"{ACCELERATORS[node.name]}:{job.ranks_per_node}"}


def trainjob(job: Job) -> dict[str, Any]:
    """A TrainJob for `kubectl apply`, on the runtime torch-distributed, which gives torchrun nodes and address (trainer.kubeflow.org/v1alpha1)."""
    gpus = {"limits": {"nvidia.com/gpu": str(job.ranks_per_node)}} if job.plan.run.node.gpus else {}
    words = ("python", "-m", TORCHRUN, NO_RESTARTS, *TRAIN, *job.words)
    held = [{"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": name, "optional": True}}} for name in job.secrets]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name_of(job), "annotations": {ANNOTATION: job.plan.run.name}},
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": "torch-distributed"},
            "trainer": {
                "image": job.image,
                "numNodes": job.nodes,
                "numProcPerNode": job.ranks_per_node,
                "command": [word.replace("$", "$$") for word in words],  # else Kubernetes fills $(NAME) in
                "env": [{"name": name, "value": value} for name, value in [HANDLED]] + held,
                "resourcesPerNode": {**gpus, "requests": {"memory": f"{job.memory // MIB}Mi"}},
            },
        },
    }


def name_of(job: Job) -> str:
    """The run's name as a name of Kubernetes, and of SkyPilot, may be written: RFC 1123, at most 63 characters, beginning with a letter."""
    name = re.sub(r"[^a-z0-9]+", "-", job.plan.run.name.lower()).strip("-")
    return (name if name[:1].isalpha() else f"run-{name}")[:63].strip("-")


KINDS: dict[str, Callable[[Job], dict[str, Any]]] = {"skypilot": skypilot, "trainjob": trainjob}
