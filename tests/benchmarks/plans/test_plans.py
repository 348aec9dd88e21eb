"""What the comparison of plans before and after a change sees, and what it leaves out."""

import json
import sys

import pytest

from benchmarks.plans import plans

PLAN = {
    "run_folder": "TEMP/outputs/a/TIME",
    "memory": {"nvml": 153, "peak": "load"},
    "argv": ["VENV/bin/python", "-m", "trainers.export", "TEMP/run"],
}
PLANNED = {"overrides": ["regime=lora"], "exit_code": 0, "plan": PLAN}
REFUSED = {"overrides": ["regime=qlora"], "exit_code": 2, "rules": ["hqq-zero3"], "message": "regimen: hqq-zero3: no."}


@pytest.fixture
def compared(tmp_path, monkeypatch):
    def code(before, after, *options):
        for name, records in (("before", before), ("after", after)):
            (tmp_path / name).write_text("".join(f"{json.dumps(record)}\n" for record in records))
        monkeypatch.setattr(sys, "argv", ["plans.py", "compare", str(tmp_path / "before"), str(tmp_path / "after"), *options])
        return plans.main()

    return code


def test_equal_plans_do_not_differ(compared, capsys):
    assert compared([PLANNED, REFUSED], [REFUSED, PLANNED]) == 0
    assert capsys.readouterr().out == "2 jobs before, 2 after: 0 differ.\n"


def test_a_changed_number_is_named_with_its_key(compared, capsys):
    assert compared([PLANNED], [PLANNED | {"plan": PLAN | {"memory": {"nvml": 154, "peak": "load"}}}]) == 1
    assert "regime=lora\n  plan.memory.nvml: 153 -> 154\n" in capsys.readouterr().out


def test_a_job_that_is_missing_on_either_side_is_a_difference(compared):
    assert compared([PLANNED, REFUSED], [PLANNED]) == 1
    assert compared([PLANNED], [PLANNED, REFUSED]) == 1


def test_an_added_key_and_another_type_are_differences(compared):
    assert compared([PLANNED], [PLANNED | {"plan": PLAN | {"fit": []}}]) == 1
    assert compared([PLANNED], [PLANNED | {"plan": PLAN | {"memory": {"nvml": 153.0, "peak": "load"}}}]) == 1


def test_a_moved_module_is_a_difference_unless_it_is_said_to_be_renamed(compared):
    moved = PLANNED | {"plan": PLAN | {"argv": ["VENV/bin/python", "-m", "trainers.verbs.export", "TEMP/run"]}}

    assert compared([PLANNED], [moved]) == 1
    assert compared([PLANNED], [moved], "--renamed", "trainers.export=trainers.verbs.export") == 0
    assert compared([PLANNED], [moved], "--renamed", "export=verbs.export") == 1  # no module of that name


def test_of_refused_jobs_the_rules_are_compared_and_the_words_only_when_asked(compared):
    reworded = REFUSED | {"message": "regimen: hqq-zero3: that cannot work."}

    assert compared([REFUSED], [reworded]) == 0
    assert compared([REFUSED], [reworded], "--messages") == 1
    assert compared([REFUSED], [REFUSED | {"rules": ["hqq-fsdp2"]}]) == 1


def test_paths_of_a_machine_are_written_as_names():
    def written(temporary, checkout):
        text = json.dumps({"run_folder": f"{temporary}/outputs", "PYTHONPATH": checkout})
        return plans.neutral(text, {temporary: "TEMP", checkout: "CHECKOUT"})

    assert written("/tmp/a1", "/srv/one") == written("/tmp/b2/a1", "/srv/one/two")


def test_what_a_part_lacks_is_no_difference_when_it_is_said_to_be_a_part(compared):
    assert compared([PLANNED, REFUSED], [REFUSED], "--part") == 0
    assert compared([PLANNED], [PLANNED, REFUSED], "--part") == 1
