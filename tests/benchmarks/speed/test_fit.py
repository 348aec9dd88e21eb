"""Tokens/s of the combinations of a job."""

from benchmarks.speed.fit import JOBS, Combination, report, speed


def line(micro_batch, seconds, *, job="a", chosen=False):
    form = {"tokens_per_pass": micro_batch * 1024, "operations": 16 * 10**12, "step_tokens": 16384, "layers": 10, "gradient_checkpointing": False}
    return {"name": f"{job}/{micro_batch}", "job": job, "chosen": chosen, "exit_code": 0, "tokens_per_second": 16384 / seconds, **form}


def test_the_speed_is_the_median_of_the_steps_after_two_that_warm_up():
    """lora-1b learns 16 x 1,024 tokens a step; the steps after the second took 2, 2 and 5 s."""
    combination = Combination(JOBS[0], 1, False, "plain", "plain", False, 0, 1024, 1, 1)
    assert speed(combination, [100.0, 109.0, 111.0, 113.0, 118.0]) == {"step_seconds": [2.0, 2.0, 5.0], "tokens_per_second": 8192.0}


def test_the_last_step_of_fused_kernels_has_no_time_of_its_own():
    combination = Combination(JOBS[0], 1, False, "fused", "fused", False, 0, 1024, 1, 1)
    assert speed(combination, [100.0, 109.0, 111.0, 113.0, 113.0]) == {"step_seconds": [2.0, 2.0], "tokens_per_second": 8192.0}


def test_a_run_that_ended_early_has_no_speed():
    assert speed(Combination(JOBS[0], 1, False, "plain", "plain", False, 0, 1024, 1, 1), [100.0, 109.0]) == {}


def test_the_report_compares_the_choice_with_the_best_and_names_what_failed():
    failed = {key: value for key, value in line(16, 1.0).items() if key != "tokens_per_second"} | {"exit_code": 80}
    text = report([line(1, 2.0), line(2, 1.0), line(4, 1.25, chosen=True), failed])
    assert "a: fit=auto's choice has 0.800 of the best (3 combinations)" in text
    assert text.index("a/2") < text.index("a/4") < text.index("a/1 ")
    assert "failed: 80" in text
