"""What people read: sizes, times, the sentence of a run, the reasons of a refusal."""

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from conf.run_dir import RunDir
from launcher.cli import main
from launcher.composition.compose import compose
from launcher.errors import ConfigError
from launcher.gate.judge import Judged, judge_run
from launcher.gate.proposals import regime_matrix
from launcher.gate.variants import judging_like
from launcher.gate.verdict import refusal_text
from launcher.launch.plan import new_run_dir, plan_as_dict, plan_for
from launcher.verbs.plan_text import bar, explanation_lines, matrix_lines, memory_lines, plan_text, run_sentence, short, time_sentence, verdict_lines
from launcher.words import count, duration, gib, plural

SITE = {"PATH": "/bin", "HF_TOKEN": "hf_secret", "MY_PASSWORD": "open sesame", "NCCL_DEBUG": "INFO"}


@cache
def judged(*overrides: str) -> Judged:
    return judge_run(compose(["model=demo", "data=demo", "gate.mode=enforce", *overrides]))


def on_one_gpu(*overrides: str) -> Judged:
    return judged("node=rtx4090_24", "node.host_memory=64000000000", *overrides)


def test_sizes_are_in_gib_and_small_ones_in_mib() -> None:
    assert (gib(3 * 2**30), gib(2**29), gib(2**20), gib(0)) == ("3.00 GiB", "0.50 GiB", "1.0 MiB", "0.0 MiB")


def test_times_are_in_the_two_largest_units() -> None:
    assert [duration(seconds) for seconds in (0, 59.4, 59.6, 61, 3599.6, 90061, 172799.6, 180061)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "1 min 01 s",
        "1 h 00 min",
        "25 h 01 min",
        "2 days 0 h",
        "2 days 2 h",
    ]


def test_one_is_not_many() -> None:
    assert (plural(1, "rank"), plural(2, "rank"), plural(0, "rank"), plural(1234, "step")) == ("1 rank", "2 ranks", "0 ranks", "1,234 steps")


@pytest.mark.parametrize(("size", "capacity", "filled"), [(0, 100, 0), (50, 100, 15), (100, 100, 30), (300, 100, 30)])
def test_a_bar_is_full_at_the_capacity(size: int, capacity: int, filled: int) -> None:
    assert bar(size, capacity) == "█" * filled + "░" * (30 - filled)


def test_without_a_capacity_there_is_no_bar() -> None:
    assert bar(50, None) == ""


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("regime=full", "full in"),
        ("regime=lora", "LoRA of rank 16"),
        ("regime=qlora", "QLoRA in 4 bits, rank 16"),
    ],
)
def test_the_sentence_says_how_weights_learn(override: str, phrase: str) -> None:
    assert phrase in run_sentence(on_one_gpu(override))


def test_the_sentence_counts_the_batch() -> None:
    said = run_sentence(
        judged("node=h100_80", "node.gpus=4", "node.host_memory=64000000000", "training.micro_batch=2", "training.effective_batch=24")
    )
    assert "4 ranks under ddp through torchrun, 24 samples a step (micro-batch 2 x 4 ranks x accumulation 3) of at most 64 tokens" in said


def test_the_terms_of_the_peak_add_up_to_it() -> None:
    found = on_one_gpu()
    lines = memory_lines(found)
    shown = [line for line in lines if "█" in line or "░" in line]
    assert len(shown) == sum(term.bytes > 0 for term in found.estimate.peak.terms)
    assert f"allocated at the peak{gib(found.estimate.allocated):>25}" in "\n".join(lines)


def test_a_range_of_nvidia_smi_that_ends_above_the_card_is_explained() -> None:
    """Where the run is sure to fit, and what the driver would show of it is not."""
    roomy = on_one_gpu()
    ranges, said = roomy.estimate.ranges, "It shows at most the"
    needed, shown = ranges.needed.high(roomy.estimate.required), ranges.driver.high(roomy.estimate.nvml)
    assert needed < shown
    assert said not in "\n".join(memory_lines(roomy))
    assert said in "\n".join(memory_lines(on_one_gpu(f"node.gpu_memory={(needed + shown) // 2}")))


def test_every_check_of_a_verdict_is_a_line() -> None:
    found = on_one_gpu()
    lines = verdict_lines(found.verdict)
    assert lines[0] == "verdict: permitted (gate.mode=enforce)"
    assert [line.split()[1] for line in lines if line.startswith("  pass  ")] == [check.rule for check in found.verdict.checks]
    assert all(line.startswith(("  pass  ", "        ")) for line in lines[1:])
    said = " ".join(" ".join(lines).split())
    assert all(check.sentence in said for check in found.verdict.checks)


def test_a_refusal_tells_the_failed_checks_alone() -> None:
    found = on_one_gpu("node.gpu_memory=600000000")
    failed = [check for check in found.verdict.checks if not check.passed]
    assert not found.verdict.permitted
    lines = refusal_text(found.verdict).splitlines()
    assert len(lines) == 1 + len(failed)
    assert all(line.startswith("  FAIL  ") for line in lines[1:])


def test_an_explanation_marks_the_peak_and_gives_every_term_its_source() -> None:
    found = on_one_gpu()
    lines = explanation_lines(found)
    assert [line for line in lines if line.endswith("<- the peak")] == [
        f"\n{found.estimate.peak.name}: {gib(found.estimate.peak.bytes)}  <- the peak"
    ]
    for term in (term for phase in found.estimate.phases for term in phase.terms if term.bytes):
        assert f"  {term.name:<34}{gib(term.bytes):>12}  {term.source}" in lines


def test_a_plan_shows_the_command_and_never_a_secret() -> None:
    found = on_one_gpu()
    run_dir = new_run_dir(found.run, "TIME")
    text = plan_text(plan_for(found, run_dir), SITE)
    assert f"-m torch.distributed.run --nnodes=1 --nproc-per-node=1 --standalone --max-restarts=0 -m trainers {run_dir.path}" in text
    assert "without HF_TOKEN" in text
    for secret in ("hf_secret", "open sesame"):
        assert secret not in text
        assert secret not in json.dumps(plan_as_dict(plan_for(found, run_dir), SITE))


def test_counts_are_short() -> None:
    given = (8_030_261_248, 494_032_768, 402_944, 3_212_749_824, 99_999, 64)
    assert [count(number) for number in given] == ["8.03 B", "494 M", "0.4 M", "3.21 B", "99,999", "64"]


def test_what_people_read_has_no_internal_names() -> None:
    """Was: 0.000403 B parameters, lora_galore_badam, 0.0 GB, and the whole PATH."""
    found = on_one_gpu("regime=lora")
    text = plan_text(plan_for(found, new_run_dir(found.run, "TIME")), {"PATH": "/bin:/usr/bin"})
    said = " ".join(text.split())
    assert "sft of demo (0.4 M parameters)" in said
    # 16 GB for LoRA on 6,738,415,616 parameters is 1.0 MB for 402,944
    assert "the published table requires 1.0 MB for LoRA, 16 bit (0.4 M parameters)" in said
    assert f"with PATH=$PATH:{Path(sys.executable).parent}" in text
    assert "lora_galore" not in text


def test_every_line_but_the_command_and_its_environment_fits_a_terminal() -> None:
    for found in (on_one_gpu("regime=full"), judged("node=t4_16", "node.gpus=2", "cluster.nodes=2", "sharding=zero2")):
        text = plan_text(plan_for(found, new_run_dir(found.run, "TIME")), {"PATH": "/bin"})
        before, rest = text.split("\ncommand:")
        notes = rest[rest.index("\nnote:") :] if "\nnote:" in rest else ""
        assert max(map(len, (before + notes).splitlines())) <= 80


def test_several_nodes_are_named() -> None:
    found = judged("node=h100_80", "node.gpus=8", "cluster.nodes=2")
    assert run_sentence(found).endswith("on 2 nodes of 8 x H100-80GB.")
    assert "16 ranks on 2 nodes of 8 x H100-80GB; memory of one GPU:" in " ".join(" ".join(matrix_lines(found, ())[:2]).split())


def test_only_what_is_recomputed_is_called_so() -> None:
    for kept in ("true", "false"):
        found = on_one_gpu("regime=full", f"training.gradient_checkpointing={kept}")
        assert not [term.name for phase in found.estimate.phases for term in phase.terms if "recomputed" in term.name]


def test_the_matrix_compares_one_gpu_with_one_gpu() -> None:
    """Llama-3.1-8B by LoRA: 19.29 GB of the table for the job are 9.65 GB, 8.98 GiB, for one of two GPUs."""
    found = judge_run(compose(["model=llama3.1_8b", "data=demo", "node=a100_80", "node.gpus=2", "sharding=zero3"]))
    lines = matrix_lines(found, regime_matrix(found.run, found.facts, judging_like(found)))
    table = lines[: lines.index("")]
    assert max(map(len, lines)) <= 80
    (lora,) = (line for line in table if line.startswith("  lora "))
    assert lora.split()[1:5] == ["8.98", "GiB", *gib(found.estimate.required).split()]
    (packed,) = (line for line in table if line.startswith("  qlora, 2 bits"))
    assert packed.split()[-3:] == ["-", "not", "possible"]  # no need is predicted of what cannot run
    assert "qlora, 2 bits: ZeRO-3 has split the weights before HQQ can pack them." in " ".join(" ".join(lines).split())


def test_a_refused_row_says_in_its_cell_how_much_is_missing() -> None:
    found = judge_run(compose(["model=llama3.1_8b", "data=demo", "node=a100_80", "regime=full"]))
    lines = matrix_lines(found, regime_matrix(found.run, found.facts, judging_like(found)))
    checks = {check.rule: check for check in found.verdict.checks}
    short = gib(checks["GPU_PEAK"].need - checks["GPU_PEAK"].have)
    (full,) = (line for line in lines if line.startswith("  full, mixed precision"))
    assert full.endswith(f"  refused: lacks {short}")
    assert max(map(len, lines)) <= 80


def test_a_pair_that_cannot_work_is_said_in_words() -> None:
    """Was: kernels-split: The fused kernels read whole weights ..."""
    with pytest.raises(ConfigError) as caught:
        judged("node=h100_80", "training.kernels=fused", "sharding=zero3", "node.gpus=2")
    assert str(caught.value).startswith("training.kernels=fused does not work in this run. The fused kernels read whole weights")
    assert str(caught.value).endswith(" Set training.kernels=plain.")


def test_a_folder_with_blanks_is_quoted_for_pasting() -> None:
    found = on_one_gpu()
    run_dir = RunDir(new_run_dir(replace(found.run, output="/my runs"), "TIME").path)
    assert "-m trainers '/my runs/sft-lora-demo/TIME'" in plan_text(plan_for(found, run_dir), SITE)


def test_the_time_of_a_step_is_a_sentence_with_its_range_and_its_end() -> None:
    found = judged("node=h200_141", "model=llama3.2_1b", "training.max_steps=1000").expectations
    step = found.step
    said = time_sentence(found)
    assert said.startswith(f"time: about {short(step.seconds)} a step ({short(step.low)} to {short(step.high)}: ")
    assert f"{step.tokens / step.seconds:,.0f} tokens/s; about {duration(1000 * step.seconds)} for all steps" in said


def test_a_time_that_is_not_predicted_says_why() -> None:
    assert time_sentence(judged("node=cpu").expectations) == "time: not predicted, because the rates of CPUs were not measured"


def test_an_explanation_has_every_term_of_the_time() -> None:
    found = judged("node=h200_141", "model=llama3.2_1b")
    text = "\n".join(explanation_lines(found))
    assert len(found.expectations.step.terms) > 5
    assert all(term.name in text and term.source in text for term in found.expectations.step.terms)


def test_short_times_keep_the_digits_that_say_something() -> None:
    assert [short(each) for each in (0.004, 0.0446, 0.757, 1.26, 12.4, 119, 7300)] == [
        "4 ms",
        "45 ms",
        "757 ms",
        "1.3 s",
        "12 s",
        "119 s",
        "2 h 01 min",
    ]


def test_an_explained_plan_of_a_refused_run_ends_as_its_plan_does(capsys: pytest.CaptureFixture[str]) -> None:
    """It ended with 0, and without the verdict."""
    assert main(["plan", "--explain", "model=llama3.1_8b", "data=demo", "node=a100_80", "node.gpus=1", "regime=full"]) == 3
    assert "\nverdict: REFUSED" in capsys.readouterr().out
