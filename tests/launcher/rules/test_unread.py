from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema import GROUPS
from launcher.composition.given import given_values
from launcher.composition.names import known_keys
from launcher.rules.unread import ALWAYS, IN_VAIN, READ_IF, Known, unevaluated, unread
from launcher.verbs.plan import judged
from tests.described import composed, described

DEMO = ("model=demo", "data=demo", "node=cpu")


def known(*overrides: str, steps: int | None = 100) -> Known:
    given = (*DEMO, *overrides)
    return Known(composed(*given), described(*given), steps)


def notes(*overrides: str, steps: int | None = 100) -> list[str]:
    return [*unread(given_values(overrides, []), known(*overrides, steps=steps))]


def test_every_key_is_always_read_or_has_a_row_that_says_when() -> None:
    always = {f"{group}.{name}" if group else name for group, names in ALWAYS.items() for name in names.split()}
    sometimes = [key for row in READ_IF for key in row.keys]
    assert len(sometimes) == len(set(sometimes))
    assert always & set(sometimes) == set()
    assert always | set(sometimes) == {*known_keys()} - {*GROUPS, "recipe"}
    assert {row.key for row in IN_VAIN} <= always | set(sometimes)


@pytest.mark.parametrize(
    ("overrides", "key", "why"),
    [
        ("model.path=some/model", "model.path", "model=demo has random weights"),
        ("model.revision=main", "model.revision", "nothing of this model is read from the hub"),
        ("data.folder=mine", "data.folder", "the data is generated"),
        ("data.mixing=interleave_over", "data.mixing", "data.sets has one set"),
        ("data.buffer=5", "data.buffer", "data.streaming=false"),
        ("data.bad_share=0.1", "data.bad_share", "nothing is dropped with data.on_bad=fail and data.on_long=truncate"),
        ("data.workers=2 data.streaming=true training.max_steps=5 data.validation_share=0", "data.workers", "data.streaming=true tokenises"),
        ("stage=pt data.turns=repair", "data.turns", "stage=pt reads plain text"),
        ("stage=pt data.mask_prompt=false", "data.mask_prompt", "stage=pt has no prompts"),
        ("stage=pt data.on_long=drop", "data.on_long", "stage=pt cuts no samples"),
        ("stage=dpo data.train_history=false", "data.train_history", "stage=dpo does not learn earlier answers"),
        ("stage=grpo stage.rewards=[brevity] stage.generations=2 stage.format=x", "stage.format", "stage.rewards does not hold format"),
        ("stage=grpo stage.rewards=[brevity] stage.generations=2 stage.reward_packages=[a]", "stage.reward_packages", "no reward"),
        ("regime=qlora regime.bits=8 regime.double_quant=true", "regime.double_quant", "only 4 bits"),
        ("optim=sgd optim.beta1=0.5", "optim.beta1", "optim=sgd keeps no moments"),
        ("optim=lion optim.eps=1e-6", "optim.eps", "optim=lion divides by no second moment"),
        ("optim.scheduler=constant optim.warmup=5", "optim.warmup", "optim.scheduler=constant has no warmup"),
        ("training.max_steps=5 training.epochs=3", "training.epochs", "training.max_steps=5 decides the end"),
        ("checkpoint.interval=0 checkpoint.keep=3", "checkpoint.keep", "checkpoint.interval=0 saves only when the run is stopped"),
        ("data.validation_share=0 evaluation.at_start=true", "evaluation.at_start", "no samples are held out"),
        ("data.validation_share=0 evaluation.micro_batch=4", "evaluation.micro_batch", "nothing is evaluated"),
        ("data.validation_share=0 evaluation.answers=4", "evaluation.answers", "this run holds out no questions"),
        ("stage=pt evaluation.answers=4", "evaluation.answers", "this run holds out no questions"),
        ("evaluation.metric=eval_loss", "evaluation.metric", "nothing is chosen by it"),
        ("cluster.ranks_per_node=1 sharding.bucket_mb=5", "sharding.bucket_mb", "one rank alone"),
        ("sharding=zero2 sharding.whole_layers=true", "sharding.whole_layers", "sharding=zero2 never splits weights"),
        ("cluster=slurm backend.port=5000", "backend.port", "a job of cluster=slurm chooses its port itself"),
        ("node.tflops=5", "node.tflops", "node=cpu has no GPUs"),
        ("node=h100_80 node.link=5", "node.link", "no GPU of it sends anything to another"),
        ("node=h100_80 node.network=5", "node.network", "the run has one node"),
        ("cluster=slurm cluster.gpu_type=a100", "cluster.gpu_type", "node=cpu has no GPUs"),
        ("tracking=tensorboard tracking.project=mine", "tracking.project", "tracking=tensorboard has none"),
        ("tracking=mlflow tracking.entity=mine", "tracking.entity", "tracking=mlflow has none"),
        ("gate.mode=off gate.margin=0.2", "gate.margin", "gate.mode=off checks nothing"),
        ("gate.floor=advisory", "gate.floor", "the published hardware table is not asked"),
        ("cluster=slurm gate.canary=true", "gate.canary", "a canary decides only runs on this machine"),
    ],
)
def test_a_given_key_that_the_run_does_not_read_gets_a_line(overrides: str, key: str, why: str) -> None:
    [note] = [note for note in notes(*overrides.split()) if note.startswith(f"{key}=")]
    assert f"has no effect, because {why}" in note


def test_a_canary_decides_nothing_for_a_node_that_is_elsewhere() -> None:
    elsewhere = replace(known("node=h100_80", "gate.canary=true"), here=False)
    [note] = unread({"gate.canary": "true"}, elsewhere)
    assert "has no effect, because a canary decides only runs on this machine" in note


def test_a_key_that_the_run_reads_gets_none() -> None:
    read = (
        *("data.sets=[generated,other/set]", "data.mixing=interleave_over", "data.folder=mine", "data.on_bad=drop", "data.bad_share=0.1"),
        *("data.mask_prompt=true", "data.train_history=true", "data.turns=repair", "data.on_long=drop", "optim.beta1=0.5", "optim.eps=1e-6"),
        *(
            "optim.warmup=5",
            "training.epochs=2",
            "checkpoint.keep=3",
            "evaluation.at_start=true",
            "evaluation.micro_batch=4",
            "evaluation.patience=2",
        ),
        *("evaluation.metric=eval_loss", "sharding.bucket_mb=5", "backend.port=5000", "gate.margin=0.2", "gate.canary=true"),
    )
    assert notes(*read) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=0", "optim.lr=0: nothing is learned."),
        ("training.on_oom=split", "training.on_oom=split: training.micro_batch=1 cannot be made smaller"),
        ("optim.warmup=100", "optim.warmup=100: the run ends after 100 steps, before the learning rate reaches optim.lr."),
        ("checkpoint.interval=101", "checkpoint.interval=101: the run ends after 100 steps, so no checkpoint is saved before its end."),
        ("evaluation.interval=101", "evaluation.interval=101: the run ends after 100 steps, so none is made between its first and last."),
        ("evaluation.answers=201", "evaluation.answers=201: 200 samples are held out, and no more questions than these are asked."),
    ],
)
def test_a_value_that_changes_nothing_gets_a_line(override: str, said: str) -> None:
    [note] = notes(override)
    assert note.startswith(said)


@pytest.mark.parametrize(
    "override", ["optim.warmup=99", "checkpoint.interval=100", "evaluation.interval=100", "evaluation.answers=200", "optim.warmup=0.5"]
)
def test_a_value_that_has_its_effect_gets_none(override: str) -> None:
    assert notes(override) == []


def test_held_out_samples_that_no_evaluation_reads_get_a_line() -> None:
    assert unevaluated(known()) == ()
    assert unevaluated(known("evaluation.interval=0", "data.validation_share=0")) == ()
    [never] = unevaluated(known("evaluation.interval=0"))
    assert never.startswith("evaluation.interval=0: samples are held out and never evaluated.")
    late = ("evaluation.interval=101", "evaluation.at_start=false", "evaluation.at_end=false")
    assert len(unevaluated(known(*late))) == 1
    assert unevaluated(known(*late, steps=101)) == ()


def test_only_what_the_user_set_gets_a_line(tmp_path: Path) -> None:
    assert [note for note in judged([*DEMO, "optim=sgd"], []).notes if "has no effect" in note] == []
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim/mine.yaml").write_text("defaults: [sgd, _self_]\nbeta1: 0.5\nlr: 0.1\n")
    [note] = [note for note in judged([*DEMO, "optim=mine"], [tmp_path]).notes if "has no effect" in note]
    assert note.startswith("optim.beta1=0.5 has no effect, because optim=sgd keeps no moments.")
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("defaults: [{override /model: demo}, {override /data: demo}]\ndata:\n  buffer: 7\n")
    [note] = [note for note in judged(["recipe=mine", "node=cpu"], [tmp_path]).notes if "has no effect" in note]
    assert note.startswith("data.buffer=7 has no effect, because data.streaming=false.")


SLURM = ("cluster=slurm", "node=h100_80")


def test_gpu_types_of_a_partition_that_is_not_asked_are_in_vain() -> None:
    found = notes(*SLURM, "cluster.gpu_types=[a100:a100_80]")
    assert any("cluster.gpu_types=" in note and "node=h100_80 is stated" in note for note in found)


def test_a_variable_that_is_not_set_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/cache")
    monkeypatch.delenv("NOT_THERE", raising=False)
    assert any("NOT_THERE is not set in this shell" in note for note in notes(*SLURM, "cluster.export=[HF_HOME,NOT_THERE]"))
    assert not any("cluster.export" in note for note in notes(*SLURM, "cluster.export=[HF_HOME]"))


def test_a_finished_run_is_not_waited_for(tmp_path: Path) -> None:
    assert not any("cluster.after" in note for note in notes(*SLURM, f"cluster.after={tmp_path}"))
    (tmp_path / "model").mkdir()
    assert any("that run is finished, so the job waits for nothing" in note for note in notes(*SLURM, f"cluster.after={tmp_path}"))
