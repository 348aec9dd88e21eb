"""`regimen data validate` and `data prepare` from the command line: output, exit code, and what training then takes."""

import json
import subprocess
from pathlib import Path

import pytest

from conf.hub import is_of_hub
from launcher.cli import main
from launcher.facts.data import has_sets_of_hub
from launcher.verbs.data import described, facts_of_model
from tests.in_process import run_verbs_here

DEMO = ("recipe=demo", "data=files", "data.cutoff=64", "data.sets=[a.jsonl]", "data.workers=2")


def write(folder: Path, *rows: str) -> tuple[str, ...]:
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n")
    return (*DEMO, f"data.folder={folder}", f"output={folder}/outputs")


def test_good_data_validate_with_code_0_and_broken_ones_with_4(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_verbs_here(monkeypatch)
    good = json.dumps({"instruction": "q", "output": "a"})
    given = write(tmp_path, good, good)
    assert main(["data", "validate", *given, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["train"]["duplicates"], report["refusal"]) == (1, None)
    assert Path(report["picture"]).is_file()
    given = write(tmp_path, good, '{"instruction": "q"')
    assert main(["data", "validate", *given]) == 4
    said = capfd.readouterr()
    assert "⟦a<|im_end|>⟧" in said.out
    assert f"{tmp_path}/a.jsonl, line 2, column 20: broken JSON" in said.out


def test_prepared_data_lie_in_the_cache_and_are_not_made_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write(tmp_path, json.dumps({"instruction": "q", "output": "a"}))
    assert main(["data", "prepare", *given]) == 0
    assert "1 samples: 1 to train" in capfd.readouterr().out
    [folder] = (tmp_path / "outputs" / ".data").iterdir()
    made = (folder / "train.arrow").stat().st_mtime_ns
    run_verbs_here(monkeypatch)
    assert main(["data", "prepare", *given]) == 0
    assert f"cached: {folder}" in capfd.readouterr().out
    assert (folder / "train.arrow").stat().st_mtime_ns == made


@pytest.mark.parametrize("verb", ["validate", "prepare"])
def test_a_configuration_is_judged_before_a_process_starts(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", verb, *DEMO, "data.on_bad=keep"]) == 2
    assert "data.on_bad=keep is out of range. It must be one of fail, drop" in capfd.readouterr().err


def test_a_picture_that_cannot_be_written_is_refused_before_the_data_are_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "validate", *write(tmp_path), "--picture", str(tmp_path)]) == 74
    assert f"--picture {tmp_path} cannot be written" in capfd.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "prepare"])
def test_a_cutoff_beyond_the_positions_of_the_model_is_refused_as_a_plan_refuses_it(
    verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [*write(tmp_path, json.dumps({"instruction": "q", "output": "a"})), "data.cutoff=513", "node=cpu"]
    assert main(["plan", *given]) == 2
    planned = capfd.readouterr().err
    assert "data.cutoff=513 is longer than the 512 positions of demo" in planned
    assert main(["data", verb, *given]) == 2
    assert capfd.readouterr().err == planned


def test_a_model_that_cannot_be_counted_is_left_to_training(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody_knows"}')
    assert facts_of_model(described(["model=local", f"model.path={tmp_path}", "data=demo"], [])) is None


def test_a_silent_hub_is_asked_once_and_said(tmp_path: Path, site_environment: dict[str, str], python: str) -> None:
    """Nobody listens at the endpoint. The tokenizer of the preset is on the hub; its config.json is in the preset."""
    given = (*write(tmp_path, json.dumps({"instruction": "q", "output": "a"})), "model=qwen2.5_0.5b")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [python, "-m", "launcher", "data", "validate", *given], env={**site_environment, **nowhere}, capture_output=True, text=True, check=False
    )
    note, refusal = done.stderr.splitlines()
    assert note.startswith("The hub cannot be reached (")
    assert note.endswith("), so only what was downloaded before is read.")
    assert "model.path=Qwen/Qwen2.5-0.5B: there is no such folder, and no tokenizer of that hub id could be loaded" in refusal
    assert done.returncode == 2


def test_what_no_hub_has_does_not_ask_it() -> None:
    assert not is_of_hub(described([*DEMO], []).model)
    assert is_of_hub(described([*DEMO, "model=qwen2.5_0.5b"], []).model)
    assert not is_of_hub(described([*DEMO, "model=local", "model.path=/somewhere"], []).model)
    assert has_sets_of_hub(described([*DEMO, "data.sets=[generated]", "data.evaluation_sets=[org/name]"], []).data)
    assert not has_sets_of_hub(described([*DEMO, "data.sets=[generated]"], []).data)
