"""The exact commands that start ranks, and what they find in their environment."""

import os
import string
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.run import get_args_parser

from conf.run_dir import RunDir
from conf.schema import Run
from launcher.command import PACKAGES, Command
from launcher.launch.backends import accelerate_config, command, node_argv
from tests.described import described

RUN_DIR = RunDir(Path("/runs/a b/1"))
SITE_PREFIXES = ("NCCL_", "NVSHMEM_", "TORCH_", "CUDA_", "UCX_", "LD_")


@cache
def composed(*overrides: str) -> Run:
    return described("model=demo", "data=demo", *overrides)


def on_cpu(*overrides: str) -> Run:
    return composed("node=cpu", *overrides)


def on_gpus(*overrides: str) -> Run:
    return composed("node=h100_80", "node.gpus=8", *overrides)


def environment(run: Run, site: dict[str, str]) -> dict[str, str]:
    return command(run, RUN_DIR).environment(site)


def test_torchrun_starts_the_ranks_of_one_machine_at_a_free_port() -> None:
    assert command(on_cpu(), RUN_DIR).argv == (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--standalone", "--max-restarts=0"),
        *("-m", "trainers", "/runs/a b/1"),
    )


def test_torchrun_meets_at_the_stated_port() -> None:
    argv = command(on_gpus("backend.port=29511", "backend.max_restarts=3", "cluster.ranks_per_node=4"), RUN_DIR).argv
    assert argv == (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=4"),
        *("--master-addr=127.0.0.1", "--master-port=29511", "--max-restarts=0", "-m", "trainers", "/runs/a b/1"),
    )


def test_accelerate_is_given_a_configuration_of_its_own() -> None:
    assert command(on_cpu("backend=accelerate"), RUN_DIR).argv == (
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file=/runs/a b/1/accelerate.yaml", "--max-restarts=0"),
        *("-m", "trainers", "/runs/a b/1"),
    )


@pytest.mark.parametrize("backend", ["torchrun", "accelerate"])
def test_the_warning_of_a_cluster_is_among_what_the_agent_passes_on(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both agents take what they handle from torchrun's own parser, and accelerate has no option for it."""
    found = environment(on_cpu(f"backend={backend}"), {"PET_SIGNALS_TO_HANDLE": "SIGTERM"})["PET_SIGNALS_TO_HANDLE"]
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", found)
    handled = get_args_parser().parse_args(["-m", "trainers"]).signals_to_handle.split(",")
    assert {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"} <= set(handled)


def test_a_node_of_a_cluster_is_told_its_place() -> None:
    run = on_gpus("cluster=slurm", "cluster.nodes=2")
    assert node_argv(run, RUN_DIR, "1", "node7", "4711") == (
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=8"),
        *("--node-rank=1", "--master-addr=node7", "--master-port=4711", "--max-restarts=0", "-m", "trainers", "/runs/a b/1"),
    )
    assert node_argv(on_gpus("cluster=slurm", "cluster.nodes=2", "backend=accelerate"), RUN_DIR, "1", "node7", "4711") == (
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file=/runs/a b/1/accelerate.yaml", "--rdzv-backend=static"),
        *("--machine-rank=1", "--main-process-ip=node7", "--main-process-port=4711", "--max-restarts=0", "-m", "trainers", "/runs/a b/1"),
    )


@pytest.mark.parametrize(("on_node", "processes"), [(on_cpu, 3 * 2), (on_gpus, 3 * 8)])
def test_accelerates_configuration_starts_every_rank_on_cpus_too(on_node: Callable[..., Run], processes: int) -> None:
    config = yaml.safe_load(accelerate_config(on_node("backend=accelerate", "cluster=slurm", "cluster.nodes=3")))
    assert (config["distributed_type"], config["use_cpu"], config["mixed_precision"]) == ("MULTI_GPU", False, "no")
    assert (config["num_machines"], config["num_processes"]) == (3, processes)


def test_accelerate_takes_a_free_port_unless_one_is_stated() -> None:
    free, stated = (yaml.safe_load(accelerate_config(on_cpu("backend=accelerate", f"backend.port={port}"))) for port in (0, 29511))
    assert (free["main_process_port"], free["rdzv_backend"]) == (0, "c10d")
    assert (stated["main_process_port"], stated["rdzv_backend"]) == (29511, "static")


site_names = st.builds(
    lambda prefix, rest: prefix + rest, st.sampled_from(SITE_PREFIXES), st.text(string.ascii_uppercase + "_", min_size=1, max_size=12)
)


@settings(max_examples=100, deadline=None)
@given(site=st.dictionaries(site_names, st.text(string.printable, max_size=20), max_size=8))
def test_what_the_site_set_up_for_its_hardware_reaches_the_ranks_unchanged(site: dict[str, str]) -> None:
    for run in (on_gpus(), on_gpus("backend=accelerate", "sharding=zero3", "tracking=wandb")):
        found = environment(run, site)
        assert {name: found[name] for name in site} == site


def test_nothing_of_that_hardware_is_set_where_the_site_says_nothing() -> None:
    assert not [name for name in environment(on_gpus(), {}) if name.startswith(SITE_PREFIXES)]


def test_the_sites_own_values_win_over_defaults() -> None:
    site = {"OMP_NUM_THREADS": "7", "PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync", "TOKENIZERS_PARALLELISM": "true"}
    found = environment(on_gpus(), site)
    assert {name: found[name] for name in site} == site


@pytest.mark.parametrize("older", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"])
def test_an_allocator_setting_under_its_older_name_stays_in_force(older: str) -> None:
    """torch reads the older names only where PYTORCH_ALLOC_CONF is not set."""
    assert "PYTORCH_ALLOC_CONF" not in environment(on_gpus(), {older: "max_split_size_mb:128"})


def test_ranks_read_files_of_libraries_in_utf_8_whatever_the_site_says() -> None:
    """torch's templates hold more than ASCII, and it names no encoding: under LC_ALL=C and PYTHONUTF8=0 its import ended the rank."""
    assert environment(on_cpu(), {"LC_ALL": "C", "PYTHONUTF8": "0"})["PYTHONUTF8"] == "1"


def test_the_defaults_fill_what_the_site_leaves_open() -> None:
    found = environment(on_gpus(), {})
    assert found["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert found["OMP_NUM_THREADS"] == str(max(1, (os.cpu_count() or 1) // 8))


def test_a_deterministic_run_states_the_workspaces_of_cublas_whatever_the_site_says() -> None:
    site = {"CUBLAS_WORKSPACE_CONFIG": ":0:0"}
    assert environment(on_gpus("training.deterministic=true"), site)["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert environment(on_gpus(), site)["CUBLAS_WORKSPACE_CONFIG"] == ":0:0"


def test_ranks_of_a_cpu_node_see_no_gpu() -> None:
    found = environment(on_cpu(), {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (found["CUDA_VISIBLE_DEVICES"], found["DS_ACCELERATOR"]) == ("", "cpu")
    assert "PYTORCH_ALLOC_CONF" not in found


def test_a_folder_of_the_users_cannot_shadow_the_packages() -> None:
    found = environment(on_gpus(), {"PYTHONSAFEPATH": "", "PYTHONPATH": f"/their/lib:{PACKAGES}:/other"})
    assert found["PYTHONSAFEPATH"] == "1"
    assert found["PYTHONPATH"] == f"{PACKAGES}:/their/lib:/other"


def test_the_interpreters_folder_is_the_last_to_be_searched() -> None:
    folder = str(Path(sys.executable).parent)
    assert environment(on_gpus(), {"PATH": "/a:/b"})["PATH"] == f"/a:/b:{folder}"
    assert environment(on_gpus(), {"PATH": f"{folder}:/b"})["PATH"] == f"{folder}:/b"


SECRETS = {"AWS_SECRET_ACCESS_KEY": "a", "GITHUB_TOKEN": "b", "OPENAI_API_KEY": "c", "HF_TOKEN": "d", "WANDB_API_KEY": "e", "COMET_API_KEY": "f"}


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        ((), set()),
        (("tracking=wandb",), {"WANDB_API_KEY"}),
        (("tracking=tensorboard", "tracking.also=[comet,trackio]"), {"COMET_API_KEY", "HF_TOKEN"}),
        (("data.sets=[tatsu-lab/alpaca]",), {"HF_TOKEN"}),
        (("model.path=meta-llama/Llama-3.1-8B",), {"HF_TOKEN"}),
        (("model.tokenizer=meta-llama/Llama-3.1-8B",), {"HF_TOKEN"}),
    ],
)
def test_secrets_reach_only_the_runs_that_use_them(overrides: tuple[str, ...], kept: set[str]) -> None:
    assert SECRETS.keys() & environment(on_cpu(*overrides), SECRETS).keys() == kept


def test_the_plan_shows_what_is_withheld_without_its_value() -> None:
    changes = command(on_cpu(), RUN_DIR).changes({**SECRETS, "OMP_NUM_THREADS": "7"})
    assert {name: value for name, value in changes.items() if name in SECRETS} == dict.fromkeys(SECRETS)
    assert "OMP_NUM_THREADS" not in changes


def test_a_plan_shows_the_environment_by_name_in_whatever_order_the_caller_has_it() -> None:
    shown = [[*Command((), (("B", "1"), ("A", "1")), (("D", "1"),), ("C",)).changes(site)] for site in ({"C": "x", "D": "2"}, {"D": "2", "C": "x"})]
    assert shown[0] == shown[1] == sorted(shown[0])


def test_what_is_shown_as_changes_makes_the_environment_of_the_ranks() -> None:
    site = {**SECRETS, "PATH": "/bin", "NCCL_DEBUG": "INFO", "PYTHONSAFEPATH": "1"}
    started = command(on_gpus("tracking=tensorboard"), RUN_DIR)
    rebuilt = {**site, **started.changes(site)}
    assert {name: value for name, value in rebuilt.items() if value is not None} == started.environment(site)


def test_trackers_are_told_their_folder_and_names() -> None:
    assert environment(on_cpu("tracking=tensorboard"), {})["TENSORBOARD_LOGGING_DIR"] == "/runs/a b/1/tracking"
    run = on_cpu("tracking=wandb", "tracking.project=p")
    found = environment(run, {"WANDB_PROJECT": "site", "WANDB_ENTITY": "lab"})
    assert (found["WANDB_DIR"], found["WANDB_PROJECT"], found["WANDB_ENTITY"]) == ("/runs/a b/1", "p", "lab")
