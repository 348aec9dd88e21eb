"""Golden batch scripts, and values that would run as commands if they were let through."""

import re
import subprocess
import sys
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from conf.schema import Run, Slurm
from launcher.errors import ConfigError, SubmissionError, Unsafe
from launcher.launch.batch_script import (
    HEAD,
    NODE_RANK,
    PORT,
    Asked,
    contradicting_variables,
    directives,
    in_container,
    parse_job_id,
    render,
    sbatch_argv,
)
from launcher.rules.slurm_forms import FORMS, FURTHER, LISTS, refuse_other_directive, refuse_other_values
from tests.described import described

GOLDEN = Path(__file__).parent / "golden"
RUN_DIR = RunDir(Path("/home/user/outputs/demo/2026-11-22_14-05-00"))
COMMAND = (
    *("/opt/venv/bin/python", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=4"),
    *(f"--node-rank={NODE_RANK}", f"--master-addr={HEAD}", f"--master-port={PORT}", "-m", "trainers", str(RUN_DIR.path)),
)
LAUNCHER = ("/opt/venv/bin/python", "-m", "launcher")


@cache
def composed() -> Run:
    return described("model=demo", "data=demo", "cluster=slurm", "node=cpu", "name=demo", "output=/home/user/outputs")


def slurm_run(**cluster: object) -> Run:
    run = composed()
    return replace(run, cluster=replace(run.cluster, nodes=2, ranks_per_node=4, **cluster))


def on_gpus() -> Run:
    run = slurm_run(
        partition="gpu,gpu-long",
        account="lab_7",
        qos="high",
        time="1-12:00:00",
        gpu_type="h100",
        cpus_per_rank=8,
        memory="500G",
        constraint="nvlink&(h100|h200)",
        reservation="course",
        exclude="node[3-5,7]",
        signal_seconds=600,
    )
    return replace(run, node=replace(run.node, gpus=4))


def at_a_site() -> Run:
    """Every key that is about the site and not about the size of the job."""
    return slurm_run(
        exclusive=True,
        licenses="solver:2,other@server",
        mail_user="me@example.org",
        mail_type="END,FAIL",
        comment="paper-2/table-3",
        dependency="afterok:4711:4712,afterany:4713",
        directives=["nice=100", "nodelist=node[3-5]", "contiguous"],
        setup=["module purge", "module load cuda/12.4 nccl", "conda activate /envs/site"],
    )


IMAGE = {"container_mounts": ["/scratch", "/data:/mnt/data:ro"], "container_python": "/usr/local/bin/python3"}


def in_pyxis() -> Run:
    return slurm_run(container="nvcr.io#nvidia/pytorch:25.01-py3", **IMAGE)


def in_apptainer() -> Run:
    run = slurm_run(container="/images/regimen.sif", container_runtime="apptainer", **IMAGE)
    return replace(run, node=replace(run.node, gpus=4))


PLANNED = Asked("9000M")
EXPORTED = Asked("9000M", ("4711",), ("HF_HOME", "PATH", "HOME"))
SCRIPTS = {
    "cpu": (slurm_run(), Asked()),
    "gpu": (on_gpus(), PLANNED),
    "site": (at_a_site(), PLANNED),
    "planned": (slurm_run(), EXPORTED),
    "pyxis": (in_pyxis(), PLANNED),
    "apptainer": (in_apptainer(), PLANNED),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_rendered_scripts_are_the_golden_ones(name: str, request: pytest.FixtureRequest) -> None:
    golden = GOLDEN / f"train_{name}.sbatch"
    run, asked = SCRIPTS[name]
    command = tuple(sys.executable if word == "/opt/venv/bin/python" else word for word in COMMAND) if run.cluster.container else COMMAND
    text = render(run, RUN_DIR, in_container(run, command), LAUNCHER, asked)
    if request.config.getoption("--update-golden"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_only_what_is_stated_becomes_a_directive() -> None:
    text = render(slurm_run(), RUN_DIR, COMMAND, LAUNCHER)
    assert not any(option in text for option in ("--partition", "--account", "--qos", "--time", "--mem", "--constraint", "--gpus", "--export"))


@pytest.mark.parametrize("key", ["partition", "account", "qos", "time", "gpu_type", "memory", "constraint", "reservation", "exclude"])
@pytest.mark.parametrize(
    "attack", ["a\ntouch /tmp/x", "$(id)", "`id`", "a;id", "-x", "--wrap=id", "a b", "a#b", "a'b", 'a"b', "a\x1b[0m", "a\r", "a\n"]
)
def test_no_field_takes_more_than_a_value(key: str, attack: str) -> None:
    run = slurm_run(**{key: attack})
    with pytest.raises(Unsafe, match=rf"cluster\.{key}="):
        render(replace(run, node=replace(run.node, gpus=4)), RUN_DIR, COMMAND, LAUNCHER)


@pytest.mark.parametrize("key", ["partition", "account", "qos", "time", "gpu_type", "memory", "constraint", "reservation", "exclude"])
@pytest.mark.parametrize("mistyped", ["", "=", "(a)/"])
def test_what_is_only_mistyped_is_answered_with_an_example(key: str, mistyped: str) -> None:
    run = slurm_run(**{key: mistyped})
    with pytest.raises(ConfigError, match=rf"cluster\.{key}=.*for example cluster\.{key}={re.escape(FORMS[f'cluster.{key}'].example)}"):
        render(replace(run, node=replace(run.node, gpus=4)), RUN_DIR, COMMAND, LAUNCHER)


@pytest.mark.parametrize("key", FORMS)
def test_the_example_of_each_form_has_it(key: str) -> None:
    assert re.fullmatch(FORMS[key].pattern, FORMS[key].example)


@pytest.mark.parametrize("name", ["法律-7b", "a=b,c", "été"])
def test_every_name_of_a_folder_is_the_name_of_a_job(name: str) -> None:
    """Slurm 22.05.8 keeps them: `scontrol show job` and $SLURM_JOB_NAME hold what the directive says."""
    assert f"#SBATCH --job-name={name}\n" in render(replace(slurm_run(), name=name), RUN_DIR, COMMAND, LAUNCHER)


@pytest.mark.parametrize("name", ["demo\n#SBATCH --wrap=id", "$(id)", "-demo", "a b", "a%j/../b"])
def test_the_name_of_the_run_is_checked(name: str) -> None:
    with pytest.raises((Unsafe, ConfigError), match="name="):
        render(replace(slurm_run(), name=name), RUN_DIR, COMMAND, LAUNCHER)


@pytest.mark.parametrize("folder", ["/a b", "/a%j", "/a\nb", "/a$(id)", "relative", "/a'b"])
def test_the_run_folder_is_checked(folder: str) -> None:
    with pytest.raises((Unsafe, ConfigError), match="the run folder="):
        render(slurm_run(), RunDir(Path(folder)), COMMAND, LAUNCHER)


def test_words_of_the_command_reach_the_task_as_they_are(tmp_path: Path) -> None:
    words = ("printf", "%s|", "a b", "$(id)", "it's", "`id`", f"--node-rank={NODE_RANK}", f"/x/{NODE_RANK}", "*")
    functions = render(slurm_run(), RUN_DIR, words, LAUNCHER).partition("/opt/venv/bin/python -m launcher job-start")[0]
    environment = {"SLURM_NODEID": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", functions + "node"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "a b|$(id)|it's|`id`|--node-rank=1|/x/{node_rank}|*|"


def test_a_control_character_in_the_command_is_refused() -> None:
    with pytest.raises(Unsafe, match="control character"):
        render(slurm_run(), RUN_DIR, ("echo", "a\nb"), LAUNCHER)


def test_every_text_field_of_slurm_has_its_pattern() -> None:
    texts = {field.name for field in fields(Slurm) if "str" in str(field.type)} - {"name"}
    assert {f"cluster.{name}" for name in texts} <= set(FORMS)
    assert {f"cluster.{field.name}" for field in fields(Slurm) if "list[str]" in str(field.type)} == LISTS


TEXTS = ("licenses", "mail_user", "mail_type", "comment", "dependency", "container", "container_runtime", "container_python")


@pytest.mark.parametrize("key", [*TEXTS, *(key.removeprefix("cluster.") for key in sorted(LISTS))])
@pytest.mark.parametrize(
    "attack", ["a\ntouch /tmp/x", "$(id)", "`id`", "a;id", "-x", "--wrap=id", "a'b", 'a"b', "a\r", "a\n", "module load $(id)", "ml a;id"]
)
def test_no_key_of_the_site_takes_more_than_a_value(key: str, attack: str) -> None:
    """The launcher refuses it when the run is judged, whatever is rendered then."""
    value = [attack] if f"cluster.{key}" in LISTS else attack
    cluster = slurm_run(**{key: value}).cluster
    assert isinstance(cluster, Slurm)
    with pytest.raises(Unsafe, match=rf"cluster\.{key}="):
        refuse_other_values(cluster)


@pytest.mark.parametrize("line", ["rm -rf /", "source /x", "module", "module avail", "conda deactivate", "ml a | b", "python x.py"])
def test_only_lines_that_set_up_an_environment_are_taken(line: str) -> None:
    cluster = slurm_run(setup=[line]).cluster
    assert isinstance(cluster, Slurm)
    with pytest.raises((ConfigError, Unsafe), match=r"cluster\.setup="):
        refuse_other_values(cluster)


@pytest.mark.parametrize("directive", ["wrap=id", "array=0-3", "mem=1G", "output=x", "no-requeue", "nice", "nice=x", "contiguous=1", "ntasks=4"])
def test_directives_that_change_the_plan_are_refused(directive: str) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.directives={directive}"):
        refuse_other_directive(directive)


def test_no_further_directive_has_a_key_of_its_own() -> None:
    own = {directive.partition("=")[0].removeprefix("--") for run, asked in SCRIPTS.values() for directive in directives(run, RUN_DIR, asked)}
    further = {directive.partition("=")[0] for directive in at_a_site().cluster.directives}  # type: ignore[attr-defined]
    assert not (own - further) & set(FURTHER)


@pytest.mark.parametrize(
    ("memory", "exclusive", "directive"),
    [(None, False, "--mem=9000M"), (None, True, "--mem=0"), ("default", False, None), ("64GiB", True, "--mem=64G"), ("0", False, "--mem=0")],
)
def test_memory_is_the_planned_one_unless_it_is_stated(memory: str | None, exclusive: bool, directive: str | None) -> None:
    found = [each for each in directives(slurm_run(memory=memory, exclusive=exclusive), RUN_DIR, PLANNED) if each.startswith("--mem")]
    assert found == ([directive] if directive else [])


def test_what_the_site_sets_up_reaches_the_ranks_and_stops_the_job_where_it_fails(tmp_path: Path) -> None:
    """`module` is a function of the shell at real sites; the part of the script until the ranks start runs here with one."""
    text = render(slurm_run(setup=["module load cuda/12.4"]), RunDir(tmp_path), COMMAND, ("echo", "launcher"))
    begin = text.partition("head=$(")[0] + 'echo "LOADED=$LOADED"\n'
    for code in (0, 3):
        site = f'module() {{ export LOADED="$2"; return {code}; }}; export -f module\n'
        done = subprocess.run(
            ["bash", "-c", site + begin], env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7"}, capture_output=True, text=True, check=False
        )
        first = f"launcher job-start {tmp_path} 7"
        assert done.stdout.splitlines() == [first, "LOADED=cuda/12.4" if code == 0 else f"launcher job-end {tmp_path} 7 {code} --set-up"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_the_script(name: str, tmp_path: Path) -> None:
    script = tmp_path / "train.sbatch"
    run, asked = SCRIPTS[name]
    script.write_text(render(run, RUN_DIR, COMMAND, LAUNCHER, asked))
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_sbatch_is_asked_for_the_bare_job_id() -> None:
    assert sbatch_argv(Path("/r/train.sbatch")) == ("sbatch", "--parsable", "/r/train.sbatch")


@pytest.mark.parametrize("stdout", ["4711\n", "4711;cluster2\n", "welcome to the cluster\n4711\n"])
def test_the_job_id_is_read(stdout: str) -> None:
    assert parse_job_id(stdout) == "4711"


@pytest.mark.parametrize("stdout", ["", "sbatch: error\n", "job 4711 is fine\n"])
def test_an_answer_without_job_id_is_refused(stdout: str) -> None:
    with pytest.raises(SubmissionError, match="names no job"):
        parse_job_id(stdout)


def test_planned_memory_stands_whatever_the_site_has_in_its_variables() -> None:
    memory = {"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"}
    assert memory <= set(contradicting_variables(slurm_run(), RUN_DIR, PLANNED))
    assert not memory & set(contradicting_variables(slurm_run(memory="default"), RUN_DIR, PLANNED))


def test_only_variables_that_would_change_the_planned_job_are_withheld_from_sbatch() -> None:
    names = contradicting_variables(on_gpus(), RUN_DIR)
    assert {"SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_NODE", "SBATCH_GPUS_PER_NODE", "SBATCH_OPEN_MODE", "SBATCH_EXPORT"} <= set(names)
    assert not {"SBATCH_PARTITION", "SBATCH_ACCOUNT", "SBATCH_TIMELIMIT"} & set(contradicting_variables(slurm_run(), RUN_DIR))
    assert not {"SLURM_CONF", "SLURM_CLUSTERS"} & set(names)


@pytest.mark.parametrize("value", ["SOMETIMES", "END,SOMETIMES", "end"])
def test_an_event_that_sbatch_does_not_know_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster.mail_type={value} is not a value that sbatch accepts. Write BEGIN"):
        refuse_other_values(slurm_run(mail_type=value).cluster)
    refuse_other_values(slurm_run(mail_type="BEGIN,TIME_LIMIT_80").cluster)


@pytest.mark.parametrize(
    ("value", "known"), [("soon", False), ("25:00", False), ("2026-13-01", False), ("now+2hours", True), ("2026-12-24T08:00", True)]
)
def test_a_moment_is_written_as_sbatch_reads_it(value: str, known: bool) -> None:
    if known:
        refuse_other_directive(f"begin={value}")
        return
    with pytest.raises(ConfigError, match=rf"cluster.directives=begin={value} is not a value .* Write a moment such as"):
        refuse_other_directive(f"begin={value}")


def test_a_directive_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.directives has --nice more than once"):
        refuse_other_values(slurm_run(directives=["nice=1", "contiguous", "nice=2"]).cluster)
