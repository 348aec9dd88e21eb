"""Extensions are built by real compilers in processes of their own: one is killed while it builds, and the next one goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf.run_dir import RunDir
from tests.waiting import PATIENCE, wait_until
from trainers.ranks.extensions import BATON, VARIABLE, Builds, builds_of, built, guard_deepspeed
from trainers.ranks.place import Place

# Builds a tiny library as DeepSpeed does, by torch's own loader, and prints what was said and what it answers.
BUILDER = """
import ctypes, json, os, sys
from pathlib import Path
from torch.utils.cpp_extension import load
from trainers.ranks.extensions import Builds, built

folder, source = Path(sys.argv[1]), sys.argv[2]
flags = sys.argv[3:]
said = []
path = built(Builds(folder, True), "tiny", lambda: load("tiny", [source], extra_cflags=flags, is_python_module=False), said.append)
print(json.dumps({"said": said, "answer": ctypes.CDLL(str(folder / "tiny" / "tiny.so")).answer(), "left": os.environ.get("TORCH_EXTENSIONS_DIR")}))
"""
# A compiler that waits: it stands for a large extension. The real one is beside it under its own name.
SLOW = "#!/bin/sh\ncase \"$*\" in *tiny.cpp*) touch '{begun}'; while [ -e '{held}' ]; do sleep 0.05; done;; esac\nexec c++ \"$@\"\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.cpp"
    path.write_text('extern "C" int answer() { return 42; }\n')
    return path


def builder(folder: Path, source: Path, **site: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    argv = [sys.executable, "-c", BUILDER, str(folder), str(source)]
    return subprocess.Popen(argv, env={**environment, **site}, stdout=subprocess.PIPE, text=True, start_new_session=True)


def answer_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def test_a_killed_build_and_its_stale_lock_do_not_hang_the_next(tmp_path: Path, source: Path) -> None:
    folder, begun, held, slow = (tmp_path / name for name in ("built", "begun", "held", "slow"))
    slow.write_text(SLOW.format(begun=begun, held=held))
    slow.chmod(0o755)
    held.touch()
    first = builder(folder, source, CXX=str(slow))
    wait_until(begun.exists, "compiler at work", first)
    assert (folder / ".making-tiny" / "tiny" / BATON).exists()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (folder / "tiny").exists()
    second = answer_of(builder(folder, source))
    assert (second["answer"], second["left"]) == (42, None)
    assert second["said"] == [f"compiling DeepSpeed's tiny, once for this environment, in {folder / 'tiny'}"]
    assert sorted(path.name for path in folder.iterdir()) == ["tiny", "tiny.lock"]
    before = (folder / "tiny" / "tiny.so").stat().st_mtime_ns
    (folder / "tiny" / BATON).touch()  # as a process leaves it that is killed while it loads
    third = answer_of(builder(folder, source))
    assert (third["answer"], third["said"]) == (42, [])
    assert (folder / "tiny" / "tiny.so").stat().st_mtime_ns == before  # not built again


def test_who_waits_for_a_living_builder_says_for_whom(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\nfrom trainers.ranks.extensions import turn\n"
            "with turn(pathlib.Path(sys.argv[1]), 'tiny', print):\n    print('held', flush=True)\n    sys.stdin.readline()",
            str(tmp_path / "tiny.lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            holder.stdin.write("\n")  # type: ignore[union-attr]
            holder.stdin.flush()  # type: ignore[union-attr]

    assert built(Builds(tmp_path, True), "tiny", lambda: (Path(os.environ[VARIABLE]) / "tiny").mkdir(), say) is None
    assert said[0] == f"waiting for process {holder.pid} of this machine, which compiles DeepSpeed's tiny"
    holder.communicate(timeout=PATIENCE)


def test_the_users_own_folder_is_used_as_it_is_and_a_lock_in_it_is_told(tmp_path: Path) -> None:
    builds = builds_of({VARIABLE: str(tmp_path / "mine"), "HOME": "/home/me"})
    assert builds == Builds(tmp_path / "mine", ours=False)
    baton = tmp_path / "mine" / "tiny" / BATON
    baton.parent.mkdir(parents=True)
    baton.touch()
    said: list[str] = []
    assert built(builds, "tiny", lambda: 7, said.append) == 7
    assert said[0].startswith(f"waiting for {baton}, made ")
    assert said[0].endswith("ago by a process that compiles DeepSpeed's tiny. If no process compiles it, remove that file")
    assert baton.exists()


def test_versions_machines_environments_and_compilers_do_not_share_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import deepspeed
    import torch

    builds = builds_of({"HOME": "/home/me"})
    assert builds.ours
    assert builds.folder.is_relative_to("/home/me/.cache/regimen/extensions")
    assert torch.__version__ in builds.folder.parent.name
    assert deepspeed.__version__ in builds.folder.parent.name
    assert os.uname().nodename in builds.folder.name
    assert builds_of({"XDG_CACHE_HOME": "/scratch", "HOME": "/home/me"}).folder.is_relative_to("/scratch/regimen/extensions")
    assert builds_of({"HOME": "/home/me", "CXX": "clang++"}).folder != builds.folder
    monkeypatch.setattr(sys, "prefix", "/home/me/second/.venv")
    assert builds_of({"HOME": "/home/me"}).folder != builds.folder


def test_a_second_run_of_one_process_does_not_wait_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.ops.op_builder.builder import OpBuilder

    def compiled(self: Any, verbose: bool = True) -> str:
        (Path(os.environ[VARIABLE]) / self.name).mkdir(exist_ok=True)
        return str(self.name)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(OpBuilder, "jit_load", compiled)
    for _ in range(2):
        guard_deepspeed(RunDir(tmp_path), Place(1, 1, 2))
    assert OpBuilder.jit_load(SimpleNamespace(name="tiny")) == "tiny"
