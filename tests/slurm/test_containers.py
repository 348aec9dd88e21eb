"""Containers of cluster=slurm on a real Slurm, with stand-ins for pyxis and Apptainer: which words each gets, and that the ranks run inside.

No image is there to run. The stand-in of Apptainer is a program, that of pyxis (a plugin of srun) a program named srun, which takes pyxis' options
and calls Slurm's own; it is of bash, since other shells pass no functions on. Both write down what they got, and then start what they were to start.
"""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conf.run_dir import RunDir, save_run
from launcher.command import LAUNCHER
from launcher.launch.batch_script import HEAD, NODE_RANK, PORT, in_container, parse_job_id, render, sbatch_argv
from tests.described import described
from tests.slurm.jobs import STAND_IN, Job
from tests.slurm.lab import NODES

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

APPTAINER = """#!/bin/sh
printf '%s\\n' "$@" > "$WORDS.$SLURM_NODEID"
while [ "$1" != /images/regimen.sif ]; do shift; done
shift
INSIDE=apptainer exec "$@"
"""
SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$WORDS"
for word; do
  shift
  case $word in --container-*) ;; *) set -- "$@" "$word" ;; esac
done
INSIDE=pyxis exec "$REAL_SRUN" "$@"
"""


def submitted(cluster: "Cluster", folder: Path, **container: object) -> Job:
    run_dir = RunDir(folder / "outputs/demo/one")
    run_dir.logs.mkdir(parents=True)
    run = described("model=demo", "data=demo", "cluster=slurm", "node=cpu", "name=demo", f"output={folder / 'outputs'}")
    values = {"nodes": len(NODES), "ranks_per_node": 1, "container_python": sys.executable, **container}
    run = replace(run, cluster=replace(run.cluster, **values))
    save_run(run, run_dir)
    placed = (f"--node-rank={NODE_RANK}", f"--master-addr={HEAD}", f"--master-port={PORT}")
    ranks = in_container(run, ("env", "A=1", sys.executable, str(STAND_IN), "finish", *placed, str(run_dir.path)))
    run_dir.batch_script.write_text(render(run, run_dir, ranks, LAUNCHER))
    return Job(cluster, run_dir, parse_job_id(cluster.ask(*sbatch_argv(run_dir.batch_script))), len(NODES))


def stand_in(name: str, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, cluster: "Cluster") -> Path:
    (folder / "bin").mkdir()
    (folder / "bin" / name).write_text(text)
    (folder / "bin" / name).chmod(0o755)
    environment = cluster.environment
    monkeypatch.setitem(environment, "REAL_SRUN", str(shutil.which("srun", path=environment["PATH"])))
    monkeypatch.setitem(environment, "WORDS", str(folder / "words"))
    monkeypatch.setitem(environment, "PATH", f"{folder / 'bin'}{os.pathsep}{environment['PATH']}")
    return folder / "words"


def test_apptainer_gets_the_mounts_the_image_and_the_ranks_of_each_node(cluster: "Cluster", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = stand_in("apptainer", APPTAINER, tmp_path, monkeypatch, cluster)
    job = submitted(
        cluster, tmp_path, container="/images/regimen.sif", container_runtime="apptainer", container_mounts=["/scratch", "/data:/mnt/data:ro"]
    )
    assert job.end()["JobState"] == "COMPLETED"
    outputs = tmp_path / "outputs"
    for node in range(len(NODES)):
        said = words.with_name(f"words.{node}").read_text().splitlines()
        assert said[:9] == [
            "exec", "--bind", f"{outputs}:{outputs}", "--bind", "/scratch:/scratch", "--bind", "/data:/mnt/data:ro", "/images/regimen.sif", "env",
        ]  # fmt: skip
        assert said[9:13] == ["A=1", sys.executable, str(STAND_IN), "finish"]
        assert f"--node-rank={node}" in said
        assert "INSIDE" in job.said(node)["variables"]


def test_pyxis_gets_its_options_from_the_step_alone(cluster: "Cluster", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = stand_in("srun", SRUN, tmp_path, monkeypatch, cluster)
    job = submitted(cluster, tmp_path, container="nvcr.io#nvidia/pytorch:25.01-py3", container_mounts=["/scratch"])
    assert job.end()["JobState"] == "COMPLETED"
    outputs = tmp_path / "outputs"
    assert [word for word in words.read_text().splitlines() if word.startswith("--container")] == [
        "--container-image=nvcr.io#nvidia/pytorch:25.01-py3",
        f"--container-mounts={outputs}:{outputs},/scratch:/scratch",
    ]
    assert all("INSIDE" in job.said(node)["variables"] for node in range(len(NODES)))
