"""Jobs of SkyPilot and Kubeflow: golden files, valid by the published schemas, and no word of a configuration that a shell would execute."""

import json
import shlex
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from conf.run_dir import RunDir
from launcher.errors import ConfigError
from launcher.launch.other_clusters import KINDS, rendered
from launcher.launch.plan import LaunchPlan, plan_for
from launcher.verbs.plan import judged

HERE = Path(__file__).parent
IMAGE = "registry.example/regimen:1"
RUN = (
    *("model=demo", "data=demo", "regime=full", "sharding=zero3", "node=h100_80", "node.gpus=8", "node.host_memory=1000000000000", "name=Demo_3.1"),
    *("cluster.nodes=2", "output=/shared/outputs", "tracking=wandb", '''tracking.project="it's $(touch /tmp/x) `id`"'''),
)


def planned(*further: str) -> LaunchPlan:
    return plan_for(judged([*RUN, *further], ()), RunDir(Path("/shared/outputs/demo/TIME")))


def job(kind: str, *further: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(rendered(kind, planned(*further), [*RUN, *further], IMAGE))
    return found


def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((HERE / "published" / f"{kind}.json").read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_golden(kind: str, request: pytest.FixtureRequest) -> None:
    found, golden = rendered(kind, planned(), RUN, IMAGE), HERE / "golden" / f"{kind}.yaml"
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert found == golden.read_text()


@pytest.mark.parametrize(
    "further", [(), ("cluster.nodes=1",), ("node=cpu", "node.gpus=0", "sharding=ddp", "cluster.ranks_per_node=2"), ("tracking=none",)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_is_valid_by_the_published_schema(kind: str, further: tuple[str, ...]) -> None:
    if "tracking=none" in further:
        words = [text for text in RUN if not text.startswith("tracking")]
        found = yaml.safe_load(rendered(kind, plan_for(judged(words, ()), RunDir(Path("/x"))), words, IMAGE))
    else:
        found = job(kind, *further)
    validator(kind).validate(found)


@pytest.mark.parametrize(("kind", "path"), [("skypilot", ("num_nodes",)), ("trainjob", ("spec", "trainer", "numNodes"))])
def test_the_schemas_refuse_another_type_and_an_unknown_field(kind: str, path: tuple[str, ...]) -> None:
    for key, value in ((path[-1], "two"), ("nodes", 2)):
        found = job(kind)
        inner = found
        for name in path[:-1]:
            inner = inner[name]
        inner[key] = value
        with pytest.raises(ValidationError):
            validator(kind).validate(found)


@pytest.mark.parametrize("image", ["", "a: b\nc: {{x}} #", 'x"$(id)', "https://user:word@registry.example/x:1", "-x"])
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(ConfigError, match="no name of an image"):
        rendered("skypilot", planned(), RUN, image)


@pytest.mark.parametrize("image", ["ubuntu", "localhost:5000/me/regimen_2:v1.0-rc", f"nvcr.io/x/y@sha256:{'0a' * 32}"])
def test_names_of_images_are_taken(image: str) -> None:
    assert image in rendered("trainjob", planned(), RUN, image)


def test_a_shell_passes_the_words_of_a_task_on_as_they_are(tmp_path: Path) -> None:
    """bash runs the task with a stand-in for python, which prints what it is given."""
    (tmp_path / "python").write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    (tmp_path / "python").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    }
    done = subprocess.run(("bash", "-c", job("skypilot")["run"]), env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()

    assert words[:5] == ["-m", "torch.distributed.run", "--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1"]
    assert words[words.index("train") + 1 :] == [text for text in RUN if not text.startswith("cluster.")]


def test_kubernetes_fills_nothing_into_the_words_of_a_trainjob() -> None:
    """It turns $$ into $ and $(NAME) into a variable (Container v1 core, command)."""
    words = job("trainjob")["spec"]["trainer"]["command"]

    assert [word.replace("$$", "$") for word in words][-len(RUN) + 1 :] == [text for text in RUN if text != "cluster.nodes=2"]
    assert all("$" not in word.replace("$$", "") for word in words)


def test_secrets_are_named_and_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not-to-be-seen")
    task, trained = job("skypilot"), job("trainjob")

    assert task["secrets"] == {"WANDB_API_KEY": None}
    assert trained["spec"]["trainer"]["env"][-1]["valueFrom"]["secretKeyRef"] == {"name": "regimen", "key": "WANDB_API_KEY", "optional": True}
    assert "not-to-be-seen" not in json.dumps([task, trained])


@pytest.mark.parametrize(
    ("further", "image", "said"),
    [
        (("output=outputs",), IMAGE, "output=outputs is a folder of the container"),
        ((), None, "needs an image in which regimen is installed"),
        (("backend=accelerate",), IMAGE, "starts torchrun itself"),
        (("cluster=slurm",), IMAGE, "cluster=slurm does not apply"),
        (("node.name=ours",), IMAGE, "node=ours has no name among SkyPilot's accelerators"),
        (("data.cache=tokens",), IMAGE, "data.cache: tokens is a path relative to the working folder"),
        (("data.folder=sets", "data.sets=[own.jsonl]"), IMAGE, "data.sets: sets/own.jsonl is a path relative to the working folder"),
        (
            ("data.folder=sets", "data.evaluation_sets=[own.jsonl]", "data.validation_share=0"),
            IMAGE,
            "data.evaluation_sets: sets/own.jsonl is a path relative",
        ),
    ],
)
def test_what_cannot_be_a_job_there_is_refused(
    further: tuple[str, ...], image: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sets").mkdir()
    Path("sets/own.jsonl").write_text('{"instruction": "a", "output": "b"}\n' * 200)
    words = [text for text in RUN if text.split("=")[0] not in {new.split("=")[0] for new in further}]
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        rendered("skypilot", plan_for(judged([*words, *further], ()), RunDir(Path("/x"))), [*words, *further], image)


@pytest.mark.parametrize(("path", "refused"), [("./weights", True), ("~/weights", True), ("/shared/weights", False), ("org/weights", False)])
def test_a_model_of_a_relative_folder_is_no_model_of_the_job(path: str, refused: bool) -> None:
    plan = planned()
    plan.run.model.path = path
    with pytest.raises(ConfigError, match="Give an absolute path, which must exist on every node") if refused else nullcontext():
        rendered("trainjob", plan, RUN, IMAGE)


def test_a_name_that_kubernetes_does_not_accept_is_kept_beside_the_one_that_it_does() -> None:
    metadata = job("trainjob")["metadata"]

    assert metadata == {"name": "demo-3-1", "annotations": {"regimen/run": "Demo_3.1"}}
    assert shlex.split(job("skypilot")["run"])  # whole quotes
