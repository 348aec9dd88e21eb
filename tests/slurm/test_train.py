"""`regimen train cluster=slurm` on a real Slurm: two ranks on two nodes, warned, stopped, cancelled, refused, resumed."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conf import journal
from conf.run_dir import RunDir
from conf.signs import EVALUATION, read_sign
from tests.slurm.jobs import preempt
from tests.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm

STEPS = 60  # many: a run is stopped while it trains, and no step is slowed down for that
RUN = (
    *("model=demo", "data=demo", "data.max_samples=64", "model.architecture.hidden_size=64", "model.architecture.intermediate_size=128"),
    *("cluster=slurm", "cluster.nodes=2", "cluster.ranks_per_node=1", "cluster.partition=main", "node=cpu", "sharding=ddp", "name=demo"),
    *(f"training.max_steps={STEPS}", "training.micro_batch=4", "training.precision=fp32", "regime.dropout=0.1", "optim.lr=1e-2", "optim.warmup=0"),
)
SITE = {
    "NCCL_X": "kept for NCCL",
    "GITHUB_TOKEN": "not-for-any-rank",
    "CUDA_VISIBLE_DEVICES": "0",
    # each of these alone would make another job than the planned one, or none
    **{
        "SBATCH_PARTITION": "nope",
        "SBATCH_EXPORT": "NONE",
        "SLURM_EXPORT_ENV": "NONE",
        "SLURM_MEM_PER_CPU": "50",
        "SLURM_MEM_PER_NODE": "60",
        "SLURM_GPUS": "1",
    },
}


@dataclass(frozen=True)
class CommandLine:
    """`regimen` as a user of the cluster calls it."""

    cluster: "Cluster"
    output: Path

    def call(self, verb: str, *words: str, **site: str) -> "subprocess.CompletedProcess[str]":
        inherited = {name: value for name, value in self.cluster.environment.items() if name not in ("OMP_NUM_THREADS", "PYTEST_CURRENT_TEST")}
        argv = (sys.executable, "-m", "launcher", verb, *words)
        return subprocess.run(
            argv, env={**inherited, **site}, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
        )

    def submit(self, *overrides: str, **site: str) -> "Submitted":
        stated = {override.partition("=")[0] for override in overrides}
        kept = (word for word in RUN if word.partition("=")[0] not in stated)
        done = self.call("train", *kept, f"output={self.output}", *overrides, **site)
        assert (done.returncode, done.stderr) == (0, "")
        line = done.stdout.splitlines()[-1]
        assert line.startswith("submitted as Slurm job ")
        return Submitted(line.split()[4].rstrip("."), RunDir(Path(line.rpartition(" ")[2])), done.stdout)

    def status(self, run_dir: RunDir) -> dict[str, Any]:
        [entry] = json.loads(self.call("status", str(run_dir.path), "--json").stdout)
        return entry


@dataclass(frozen=True)
class Submitted:
    job: str
    run_dir: RunDir
    said: str  # what `regimen train` printed

    @property
    def losses(self) -> list[tuple[int, float]]:
        written = self.run_dir.progress.read_text() if self.run_dir.progress.exists() else ""
        entries = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]
        return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]

    @property
    def journalled(self) -> list[dict[str, Any]]:
        return journal.events(self.run_dir)

    @property
    def events(self) -> list[str]:
        return [event["event"] for event in self.journalled]

    def ranks(self) -> list[dict[str, str]]:
        """Environments of the ranks that run now, from /proc: they lie in namespaces below this one."""
        found = [environment_of(process, str(self.run_dir.path)) for process in Path("/proc").glob("[0-9]*")]
        return sorted((environment for environment in found if "RANK" in environment), key=lambda environment: environment["RANK"])

    def ranks_at_work(self) -> list[dict[str, str]]:
        """Both ranks, found before their first step: importing torch takes them longer than finding them here."""
        wait_until(lambda: len(self.ranks()) == 2, "two ranks")
        return self.ranks()

    def evaluates(self) -> bool:
        sign = read_sign(self.run_dir.sign(0))
        return sign is not None and sign.phase == EVALUATION

    def train_a_step(self) -> None:
        """Until there is something to save: a run that is stopped before ends without a checkpoint."""
        wait_until(lambda: self.losses, "first step")


def environment_of(process: Path, run_folder: str) -> dict[str, str]:
    try:
        argv, environment = (process / "cmdline").read_bytes().decode().split("\0"), (process / "environ").read_bytes().decode()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    return dict(pair.split("=", 1) for pair in environment.split("\0") if "=" in pair) if argv[-4:-1] == ["-m", "trainers", run_folder] else {}


@contextmanager
def one_node_drained(cluster: "Cluster") -> Iterator[None]:
    """A job of two nodes has to wait."""
    cluster.ask("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    try:
        yield
    finally:
        cluster.ask("scontrol", "update", "nodename=n1", "state=resume")


@pytest.fixture(scope="module")
def regimen(cluster: "Cluster", tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(cluster, tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def reference(cluster: "Cluster", regimen: CommandLine) -> dict[str, Any]:
    """One run that nobody interrupts, looked at while it waits, while it runs, and after its end."""
    planned = regimen.call("plan", *RUN, f"output={regimen.output}", **SITE)
    planned_for_programs = regimen.call("plan", "--json", *RUN, f"output={regimen.output}", **SITE)
    with one_node_drained(cluster):
        submitted = regimen.submit(**SITE)
        waiting = regimen.status(submitted.run_dir)
    ranks = submitted.ranks_at_work()
    running = regimen.status(submitted.run_dir)
    job = cluster.wait_for(submitted.job, "COMPLETED", "FAILED")
    return {
        "planned": planned.stdout,
        "plan": json.loads(planned_for_programs.stdout),
        "submitted": submitted,
        "waiting": waiting,
        "ranks": ranks,
        "running": running,
        "job": job,
        "ended": regimen.status(submitted.run_dir),
    }


def test_a_job_of_two_nodes_trains_with_one_rank_on_each(reference: dict[str, Any]) -> None:
    run_dir = reference["submitted"].run_dir
    assert (reference["job"]["JobState"], reference["job"]["ExitCode"], reference["job"]["Restarts"]) == ("COMPLETED", "0:0", "0")
    layouts = [json.loads(run_dir.layout_file(rank).read_text()) for rank in (0, 1)]
    assert [(layout["rank"], layout["world"], layout["wrapper"]) for layout in layouts] == [
        (0, 2, "DistributedDataParallel"),
        (1, 2, "DistributedDataParallel"),
    ]
    assert [environment["SLURMD_NODENAME"] for environment in reference["ranks"]] == ["n1", "n2"]
    assert (run_dir.model / "adapter_model.safetensors").is_file()


def test_status_tells_waiting_running_and_finished(reference: dict[str, Any]) -> None:
    job, run_dir = reference["submitted"].job, reference["submitted"].run_dir
    told = {when: (reference[when]["state"], reference[when]["job"], reference[when]["exit_code"]) for when in ("waiting", "running", "ended")}
    assert told == {"waiting": ("queued", job, None), "running": ("running", job, None), "ended": ("finished", None, 0)}
    assert reference["waiting"]["message"].startswith(f"Slurm job {job}: PENDING")
    assert reference["running"]["message"] == f"Slurm job {job}: RUNNING"
    assert (reference["ended"]["step"], reference["ended"]["of"]) == (STEPS, STEPS)
    assert [json.loads(line)["event"] for line in run_dir.journal.read_text().splitlines()] == ["submitted", "start", "commit", "end"]


def test_the_planned_script_is_the_one_that_was_submitted(reference: dict[str, Any]) -> None:
    run_dir = reference["submitted"].run_dir
    [(path, text)] = reference["plan"]["files"].items()
    assert reference["plan"]["argv"] == ["sbatch", "--parsable", path]
    assert path.replace("/TIME/", f"/{run_dir.path.name}/") == str(run_dir.batch_script)
    assert text.replace("/TIME", f"/{run_dir.path.name}") == run_dir.batch_script.read_text()
    shown = reference["planned"].split(f"file {path}:\n")[1].split("\n\nrun folder:")[0]
    assert textwrap.dedent(shown) + "\n" == text
    assert f"  sbatch --parsable {path}\n" in reference["planned"]


def test_the_ranks_have_the_planned_environment(reference: dict[str, Any]) -> None:
    planned = reference["plan"]["environment"]
    absent = {name for name, value in planned.items() if value is None}
    assert {"GITHUB_TOKEN", "SBATCH_PARTITION", "SBATCH_EXPORT", "SLURM_EXPORT_ENV"} <= absent
    present = {name: value for name, value in planned.items() if value is not None}
    expected = {"PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    assert {name: present[name] for name in expected} == expected
    for environment in reference["ranks"]:
        assert environment["NCCL_X"] == SITE["NCCL_X"]
        assert {name: environment[name] for name in present} == present
        assert not {name for name in absent if name.startswith(("GITHUB", "SBATCH"))} & environment.keys()  # Slurm makes SLURM_ ones of its own


def test_a_preemption_with_a_grace_time_queues_the_job_again_without_a_trace_in_the_losses(
    cluster: "Cluster", regimen: CommandLine, reference: dict[str, Any]
) -> None:
    submitted = regimen.submit("cluster.partition=grace")
    submitted.train_a_step()
    preempt(cluster)
    [saved] = [event["step"] for event in submitted.journalled if event["event"] == "commit"][:1]
    assert 0 < saved < STEPS
    job = cluster.wait_for(submitted.job, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert submitted.events == ["submitted", "start", "commit", "stop requested", "requeued", "start", "commit", "end"]
    assert submitted.losses == reference["submitted"].losses
    assert [step for step, _ in submitted.losses] == [*range(1, STEPS + 1)]
    assert not submitted.run_dir.stop.exists()


EVALUATED = ("evaluation.interval=1", "evaluation.micro_batch=1")


@pytest.fixture(scope="module")
def undisturbed(cluster: "Cluster", regimen: CommandLine, reference: dict[str, Any]) -> dict[bool, list[tuple[int, float]]]:
    """The losses of a run without and with evaluations: those draw random numbers too, so the dropout of later steps is another one."""
    submitted = regimen.submit(*EVALUATED)
    assert cluster.wait_for(submitted.job, "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    return {False: reference["submitted"].losses, True: submitted.losses}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["torchrun", "accelerate"])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("when", ["before the first step", "in a step", "in a save", "in an evaluation"])
def test_a_preempted_job_goes_on_whatever_it_was_doing(
    when: str, nodes: int, backend: str, cluster: "Cluster", regimen: CommandLine, undisturbed: dict[bool, list[tuple[int, float]]]
) -> None:
    size = (f"cluster.nodes={nodes}", f"cluster.ranks_per_node={2 // nodes}")
    often = {"in a save": ("checkpoint.interval=1",), "in an evaluation": EVALUATED}
    submitted = regimen.submit("cluster.partition=grace", f"backend={backend}", *size, *often.get(when, ()))
    if when == "before the first step":
        submitted.ranks_at_work()
    else:
        submitted.train_a_step()
    if when == "in an evaluation":
        wait_until(submitted.evaluates, "evaluation")
    preempt(cluster)
    job = cluster.wait_for(submitted.job, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0")
    assert "requeued" in submitted.events
    assert submitted.losses == undisturbed[when == "in an evaluation"]


@pytest.mark.long
@pytest.mark.parametrize("asked", [("scancel", "--batch", "--signal=USR1"), ("scontrol", "requeue")], ids=["warned of the time limit", "requeued"])
def test_a_job_of_accelerate_on_two_nodes_saves_when_slurm_asks_and_goes_on(
    asked: tuple[str, ...], cluster: "Cluster", regimen: CommandLine, reference: dict[str, Any]
) -> None:
    submitted = regimen.submit("backend=accelerate")
    submitted.train_a_step()
    cluster.ask(*asked, submitted.job)
    job = cluster.wait_for(submitted.job, "COMPLETED", "FAILED", "CANCELLED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert submitted.events == ["submitted", "start", "commit", "stop requested", "requeued", "start", "commit", "end"]
    assert submitted.losses == reference["submitted"].losses


def test_a_stopped_job_has_saved_and_is_submitted_again_by_resume(cluster: "Cluster", regimen: CommandLine, reference: dict[str, Any]) -> None:
    """Through accelerate, which must make no difference."""
    submitted = regimen.submit("backend=accelerate")
    submitted.train_a_step()
    assert regimen.call("stop", str(submitted.run_dir.path)).returncode == 0
    job = cluster.wait_for(submitted.job, "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "75:0", "0")
    stopped = regimen.status(submitted.run_dir)
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", 75)
    assert 0 < stopped["step"] < STEPS
    script = submitted.run_dir.batch_script.read_text()
    assert "accelerate.commands.launch" in script

    resumed = regimen.call("train", f"resume={submitted.run_dir.path}")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert submitted.run_dir.batch_script.read_text() == script
    again = regimen.call("train", f"resume={submitted.run_dir.path}")
    assert again.returncode == 73
    assert "belongs to Slurm job" in again.stderr
    second = resumed.stdout.split("submitted as Slurm job ")[1].split(".")[0]
    assert cluster.wait_for(second, "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    assert submitted.losses == reference["submitted"].losses
    assert (submitted.run_dir.model / "adapter_model.safetensors").read_bytes() == (
        reference["submitted"].run_dir.model / "adapter_model.safetensors"
    ).read_bytes()


def test_a_waiting_job_is_cancelled_by_stop(cluster: "Cluster", regimen: CommandLine) -> None:
    with one_node_drained(cluster):
        submitted = regimen.submit()
        done = regimen.call("stop", str(submitted.run_dir.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not available: n1." in submitted.said
    assert f"Slurm job {submitted.job} was waiting and is cancelled" in done.stdout
    assert cluster.job(submitted.job)["JobState"] == "CANCELLED"
    told = regimen.status(submitted.run_dir)
    assert (told["state"], told["exit_code"], told["job"]) == ("stopped", 75, None)
    assert f"cancelled in the queue (Slurm job {submitted.job})" in told["message"]


def test_a_job_that_slurm_ended_is_told_as_dead(cluster: "Cluster", regimen: CommandLine) -> None:
    with one_node_drained(cluster):
        submitted = regimen.submit()
        cluster.ask("scancel", submitted.job)
    told = regimen.status(submitted.run_dir)
    assert (told["state"], told["exit_code"]) == ("dead", None)
    assert f"Slurm job {submitted.job} ended as CANCELLED" in told["message"]


@pytest.mark.parametrize(
    ("override", "code", "said"),
    [
        ("cluster.partition=nope", 5, "sbatch refused the job: invalid partition specified: nope"),
        ("cluster.memory=100T", 5, "Requested node configuration is not available"),
        ("cluster.nodes=5", 5, "Requested node configuration is not available"),
        ("node.host_memory=100000000", 3, "This run does not fit its node."),
    ],
)
def test_what_is_refused_leaves_one_message_and_no_run_folder(override: str, code: int, said: str, regimen: CommandLine, tmp_path: Path) -> None:
    done = regimen.call("train", *RUN, f"output={tmp_path}", override)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("regimen:") == 1
    assert not list(tmp_path.glob("*/*"))
