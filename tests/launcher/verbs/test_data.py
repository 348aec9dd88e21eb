"""`regimen data validate` and `data prepare` from the command line: output, exit code, and what training then takes."""

import json
from pathlib import Path

import pytest

from launcher.cli import main

DEMO = ("recipe=demo", "data=files", "data.sets=[a.jsonl]", "data.workers=2")


def write(folder: Path, *rows: str) -> tuple[str, ...]:
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n")
    return (*DEMO, f"data.folder={folder}", f"output={folder}/outputs")


def test_good_data_validate_with_code_0_and_broken_ones_with_4(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
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


def test_prepared_data_lie_in_the_cache_and_are_not_made_twice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = write(tmp_path, json.dumps({"instruction": "q", "output": "a"}))
    assert main(["data", "prepare", *given]) == 0
    assert "1 samples: 1 to train" in capfd.readouterr().out
    [folder] = (tmp_path / "outputs" / ".data").iterdir()
    made = (folder / "train.arrow").stat().st_mtime_ns
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
