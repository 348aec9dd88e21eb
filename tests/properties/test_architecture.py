"""Who may import whom, what starting costs, and that the same name stands for one thing everywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conf.choices import subtypes

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "deepspeed", "bitsandbytes", "hqq", "wandb"}
LATE = {"rich", "jinja2", "pynvml", "huggingface_hub", "matplotlib"}  # 20 to 60 ms each: imported where they are used

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import launcher, conf, hydra_plugins.regimen
for package in (launcher, conf):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""
IMPORT_ENTRY = "import json, sys, launcher.cli; print(json.dumps(sorted(sys.modules)))"


def modules_after(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_directions_hold() -> None:
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_of_the_launcher_imports_a_heavy_library() -> None:
    loaded = modules_after(IMPORT_EVERYTHING)
    assert "launcher.gate.verdict" in loaded
    assert "launcher.facts.node" in loaded
    assert not HEAVY & loaded
    assert not {name for name in loaded if name.split(".")[0] == "trainers"}


def test_the_command_line_starts_without_what_only_some_verbs_need() -> None:
    assert not (HEAVY | LATE) & modules_after(IMPORT_ENTRY)


def test_what_settling_fills_is_never_doubted_afterwards() -> None:
    """conf.schema.Run says that these are there; a fallback or an assert would say that they may not be."""
    filled = "architecture|accumulation|effective_batch|attention|micro_batch|gradient_checkpointing|loss|kernels|ranks_per_node|gpus"
    doubts = re.compile(rf"\b({filled}|gpu_memory)\)? or ([01]\b|{{}})|assert .*\b({filled})\b.* is not None")
    settling = {"launcher/gate/settle.py"}
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for folder in ("conf", "launcher", "trainers")
        for path in (REPOSITORY / folder).rglob("*.py")
        if str(path.relative_to(REPOSITORY)) not in settling
        for line in path.read_text(encoding="utf-8").splitlines()
        if doubts.search(line)
    ]
    assert found == []


def test_trainers_ask_the_environment_in_one_place() -> None:
    readers = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "trainers").rglob("*.py") if "os.environ" in path.read_text()}
    for_libraries = {  # which read these settings only from the environment: where to build, how to load, which tracked run to go on with
        "trainers/ranks/extensions.py",
        "trainers/checkpoints/pickles.py",
        "trainers/callbacks/tracking.py",
        "trainers/callbacks/integrations.py",
    }
    assert readers - for_libraries <= {"trainers/__main__.py", "trainers/ranks/place.py"}


@pytest.mark.parametrize(("group", "folder"), [("stage", "stages"), ("regime", "regimes")])
def test_a_stage_or_regime_has_the_same_name_four_times(group: str, folder: str) -> None:
    choices = {path.stem for path in (REPOSITORY / "conf" / group).glob("*.yaml")}
    modules = {path.stem for path in (REPOSITORY / "trainers" / folder).glob("*.py")}
    tests = {path.stem.removeprefix("test_") for path in (REPOSITORY / "tests" / "trainers" / folder).glob("test_*.py")}
    assert choices == set(subtypes()[group])
    assert choices <= modules
    assert choices <= tests


def test_python_m_launcher_finds_its_own_packages_in_a_folder_that_has_others_of_the_same_name(tmp_path: Path) -> None:
    for name in ("conf", "trainers", "slurm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the shadow was imported')")
    argv = (sys.executable, "-m", "launcher", "plan", "node=cpu")
    done = subprocess.run(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "verdict: permitted" in done.stdout
