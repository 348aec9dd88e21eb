"""Every command on README and on the pages is one that works: each is read by a shell, and what trains or asks a model is planned or parsed instead.

`...` in a command stands for the words of the first line of its block. RUN is a run folder.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest

from conf import journal
from conf.run_dir import RunDir, save_run
from launcher.cli import main, parsed_arguments
from launcher.launch import status
from launcher.sweep import ledger
from launcher.sweep.ledger import Start, SweepDir
from launcher.sweep.points import Point, Result
from launcher.verbs.weights import is_model_folder
from tests.described import described
from tests.page_commands import BLOCK, INLINE, PAGES, PROGRAMS, REPOSITORY, Command, commands
from tests.page_fates import fate_of

RUN = re.compile(r"^(resume=)?(RUN|FOLDER)\b")  # what a reader fills in with a run folder
GOOD = {"instruction": "What is 1 + 1?", "input": "", "output": "1 + 1 = 2."}
SLOW = ("export", "predict", "evaluate", "chat")  # they load a model; tests/trainers/verbs/test_page_lines.py runs them


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as the pages assume it: data sets, and one finished run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    finished_run(RunDir(tmp_path / "outputs" / "JUDGE" / "TIME"), "stage=rm")
    finished_run(RunDir(tmp_path / "outputs" / "RUN" / "TIME"))
    ended_sweep(SweepDir(tmp_path / "outputs" / "sweeps" / "TIME"))
    (tmp_path / "my_model").mkdir()  # as `export last --to my_model` leaves it
    (tmp_path / "my_model" / "config.json").write_text("{}")
    (tmp_path / "mine.yaml").write_text("recipe: demo\n")  # a file of a run, and two of LLaMA-Factory
    for theirs in ("lf.yaml", "llama3_lora_sft.yaml"):
        (tmp_path / theirs).write_text("stage: sft\nmodel_name_or_path: Qwen/Qwen2.5-0.5B-Instruct\ndataset: identity\n")
    (tmp_path / "axolotl.yml").write_text("base_model: Qwen/Qwen2.5-0.5B\ndatasets: [{path: my.jsonl, type: alpaca}]\nlearning_rate: 2e-4\n")
    for place in ("data", "my_data", "law_data"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "dataset_info.json").write_text(json.dumps({"alpaca_en_demo": {"file_name": "my.jsonl"}}))
    return tmp_path


def finished_run(run_dir: RunDir, *overrides: str) -> None:
    """The files of a run that the launcher reads, without its weights."""
    for made in (run_dir.checkpoint(100), run_dir.logs, run_dir.model):
        made.mkdir(parents=True)
    run = described("model=demo", "data=demo", "node=cpu", "regime=full", *overrides)
    save_run(run, run_dir)
    journal.record(run_dir, journal.Ended(0, ""))
    scores = (
        {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1} if run.stage.name == "rm" else {"architectures": ["LlamaForCausalLM"]}
    )
    (run_dir.model / "config.json").write_text(json.dumps({**run.model.architecture, **scores, "max_position_embeddings": 2048}))
    head = {"score.weight": {"dtype": "F32", "shape": [1, 128], "data_offsets": [0, 512]}} if run.stage.name == "rm" else {}
    header = json.dumps(head).encode()
    (run_dir.model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)  # the header alone
    (run_dir.model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {}}}))
    (run_dir.model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0]['content'] }}", "eos_token": "</s>"}))


def ended_sweep(sweep_dir: SweepDir) -> None:
    sweep_dir.path.mkdir(parents=True)
    ledger.record_sweep(sweep_dir, Start(("recipe=demo", "node=cpu", "optim.lr=1e-3,2e-3"), (), ""))
    ledger.record_result(sweep_dir, Result(Point(1, ("recipe=demo", "node=cpu", "optim.lr=0.001"), ("optim.lr=0.001",)), "finished", 0.5, "loss"))


ROWS = {
    "dpo": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "kto": {"prompt": "a", "completion": "b", "label": True},
    "pt": {"text": "Water boils."},
}
ROWS |= dict.fromkeys(("rm", "orpo", "simpo"), ROWS["dpo"])


def make_data(words: tuple[str, ...], folder: Path) -> None:
    """The files that the command names, in the layout of its stage."""
    said = dict(word.split("=", 1) for word in words if "=" in word)
    row = ROWS.get(said.get("stage", "sft"), GOOD)
    for name in ["my.jsonl", *re.findall(r"[\w-]+\.jsonl?", said.get("data.sets", ""))]:
        (folder / said.get("data.folder", "data") / name).write_text("".join(f"{json.dumps(row)}\n" for _ in range(400)))


def planned(words: list[str]) -> None:
    """What `train` and `plan` would do. A refusal by the gate is an answer too: README shows one."""
    assert main(["plan", *(word for word in words if word not in ("--detach", "--dry-run"))]) in (0, 3), words


def run_words(words: tuple[str, ...], folder: Path) -> None:
    """Run, plan or parse one command of regimen."""
    verb, *rest = [RUN.sub(r"\g<1>outputs/RUN/TIME", word) for word in words]
    make_data(words, folder)
    if "--save" in rest:
        Path(rest[rest.index("--save") + 1]).unlink(missing_ok=True)
    if not rest or "--help" in rest or [verb, *rest] in (["data", "validate"], ["memory", "report"]):  # a verb is named; --help knows it
        with pytest.raises(SystemExit, match="0"):
            main([verb, *rest, "--help"])
    elif verb in ("train", "plan"):
        planned(rest)
    elif verb in ("board", "mcp"):  # which answer until they are ended; tests/launcher/board and agent start them
        parsed_arguments([verb, *rest])
    elif verb == "queue":  # which leaves a process behind; tests/launcher/queue starts it
        parsed_arguments([verb, *rest])
        if rest[0] == "add":
            planned(rest[1:])
    elif verb == "data":
        assert main(["data", *rest, "--cfg"]) == 0
    elif verb == "status" and "--follow" in rest and any("sweeps" in word for word in rest):
        assert main([verb, *rest]) == 0
    elif verb in SLOW or "--follow" in rest:
        arguments = parsed_arguments([verb, *rest])
        name = str(arguments.run).split("@")[0]
        assert is_model_folder(Path(name)) or status.named_run(name, arguments.output).run_yaml.is_file()
    else:
        assert main([verb, *rest]) == 0


def check_other(words: tuple[str, ...]) -> None:
    """What is not regimen's own: a target of the Makefile, an extra of the project, a module."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert rest[0] in targets, words
    elif program == "pip":
        extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for named in re.findall(r"\.\[([\w,]+)\]", " ".join(rest)):
            assert set(named.split(",")) <= set(extras), words
    elif program == "python" and rest[0] == "-m":
        assert (REPOSITORY / Path(*rest[1].split("."))).with_suffix(".py").is_file() or (REPOSITORY / Path(*rest[1].split("."))).is_dir(), words


FOUND = commands()


def test_the_commands_of_every_page_are_found() -> None:
    pages = {command.page for command in FOUND}
    assert {"README.md", "CONTRIBUTING.md", "docs/guides/data.md", "docs/guides/slurm.md", "docs/guides/after_training.md"} <= pages
    assert {f"docs/guides/stages/{path.name}" for path in (REPOSITORY / "docs" / "guides" / "stages").glob("*.md")} <= pages
    assert len([command for command in FOUND if command.words[0] == "regimen"]) > 50


@pytest.mark.parametrize(
    "command", [command for command in FOUND if command.words[0] not in ("regimen", "torchrun")], ids=lambda command: command.name
)
def test_what_a_page_calls_beside_regimen_is_there(command: Command) -> None:
    check_other(command.words)


@pytest.mark.parametrize("command", [command for command in FOUND if command.words[0] in ("regimen", "torchrun")], ids=lambda command: command.name)
def test_a_command_of_a_page_works(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    words = command.words[command.words.index("launcher") + 1 :] if command.words[0] == "torchrun" else command.words[1:]
    if "checkpoint.resume=start" in words:  # the page speaks of a run that has not finished
        RunDir(folder / "outputs" / "RUN" / "TIME").journal.unlink()
    run_words(words, folder)
    assert "regimen: " not in capsys.readouterr().err


SAFE = re.compile(r"""'[^']*'|"[^"]*"|\$\([^)]*\)|\s#.*""")  # in quotes, substituted, or a comment
EXPANDED = re.compile(r"[\[\]*?{}~^]")  # by zsh, which ends with `no matches found` where no file has such a name


def lines_for_a_shell() -> list[str]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = [block for language, block in BLOCK.findall(text) if language in ("", "sh", "bash")]
        lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        found += [line for line in lines if line.split(" ")[0] in PROGRAMS or re.match(r"\w+=", line)] + INLINE.findall(text)
    return found


@pytest.mark.parametrize(("line", "bare"), [("regimen plan data.sets=[a]", True), ("regimen plan 'data.sets=[a]' # [b]", False)])
def test_what_zsh_would_expand_is_seen(line: str, bare: bool) -> None:
    assert bool(EXPANDED.search(SAFE.sub("", line))) is bare


def test_the_pages_quote_what_zsh_would_expand() -> None:
    lines = lines_for_a_shell()
    assert len(lines) > 100
    assert [line for line in lines if EXPANDED.search(SAFE.sub("", line))] == []


UNRUN = REPOSITORY / "tests" / "unrun_commands.txt"  # what only the network or a cluster has, and how much of it is tested


def test_every_command_is_run_by_a_test_or_stands_in_the_list_with_what_it_needs(request: pytest.FixtureRequest) -> None:
    """`pytest tests/properties/test_page_commands.py --update-golden` writes the list anew."""
    fates = {command: fate_of(command.page, command.words) for command in FOUND}
    assert [command.name for command, fate in fates.items() if fate is None] == []
    assert [fate.test for fate in fates.values() if fate is not None and not (REPOSITORY / fate.test).is_file()] == []
    lines = sorted(f"{fate.needs} ({fate.why}): {command.name}" for command, fate in fates.items() if fate is not None and fate.needs)
    text = "".join(f"{line}\n" for line in lines)
    if request.config.getoption("--update-golden"):
        UNRUN.write_text(text, encoding="utf-8")
    assert UNRUN.read_text(encoding="utf-8") == text
