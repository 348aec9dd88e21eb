"""Exports of every regime, loaded back by plain transformers and PEFT; what they hold beside weights; what is refused; the push to a hub."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

from conf.committed import MANIFEST
from conf.request import Export, Trained
from conf.run_dir import RunDir, load_run
from trainers.after_training.trained import load_trained, merged
from trainers.checkpoints.commit import seal
from trainers.verbs.export import clear_abandoned, export

Finished = Callable[[str, str], RunDir]
TOKENS = torch.arange(97, 113)[None]
EQUAL = 0.0
MERGED = 2e-5  # logits near 1 in fp32: W x + B A x against (W + B A) x
EIGHT_BITS = 0.1  # bitsandbytes rounds inputs to 8 bits too, the merged model does not


def trained_of(run_dir: RunDir, step: int | None = None) -> Trained:
    return Trained(str(run_dir.path), str(run_dir.model if step is None else run_dir.checkpoint(step)), step)


def exported(run_dir: RunDir, target: Path, form: str, step: int | None = None, **other: Any) -> Path:
    plain: dict[str, Any] = {"dtype": None, "shard_size": 10**9, "push": None, "private": True, "commit": None}
    export(load_run(run_dir), Export(trained_of(run_dir, step), form, str(target), **{**plain, **other}))
    return target


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = model.eval()(input_ids=TOKENS).logits.float()
    return output


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize(
    ("regime", "form", "tolerance"),
    [
        ("full", "copy", EQUAL),
        ("freeze", "copy", EQUAL),
        ("lora", "merged", MERGED),
        ("dora", "merged", MERGED),
        ("pissa", "merged", MERGED),
        ("qlora8", "merged", EIGHT_BITS),
        ("qlora4", "merged", MERGED),
        ("qlora2", "merged", MERGED),
    ],
)
def test_what_is_exported_gives_the_logits_that_were_trained(finished: Finished, regime: str, form: str, tolerance: float, tmp_path: Path) -> None:
    run_dir = finished("sft", regime)
    folder = exported(run_dir, tmp_path / "model", form)
    back = AutoModelForCausalLM.from_pretrained(folder)
    assert back.config.quantization_config is None if hasattr(back.config, "quantization_config") else True
    assert distance(logits(back), logits(load_trained(load_run(run_dir), trained_of(run_dir)))) <= tolerance
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_merging_eight_bits_gives_the_dequantised_base_and_the_adapter(finished: Finished) -> None:
    run_dir = finished("sft", "qlora8")
    name = "model.layers.0.self_attn.q_proj"
    model = merged(load_run(run_dir), trained_of(run_dir), torch.float32)
    original = load_file(run_dir.base / "model.safetensors")[f"{name}.weight"]
    adapter = load_file(run_dir.model / "adapter_model.safetensors")
    config = json.loads((run_dir.model / "adapter_config.json").read_text())
    low, high = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    dequantised = model.get_submodule(name).weight - config["lora_alpha"] / config["r"] * high @ low
    # each row is rounded to fp16 (11 bits), then to 255 steps between -max and max: at most half a step away
    largest = original.abs().amax(1, keepdim=True)
    assert ((dequantised - original).abs() <= largest * (2**-11 + 0.5 / 127) + 1e-6).all()
    assert distance(dequantised, original) > 1e-4


def test_an_adapter_exported_alone_is_used_on_its_base(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "lora")
    folder = exported(run_dir, tmp_path / "adapter", "adapter")
    back = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(run_dir.base), folder)
    assert distance(logits(back), logits(load_trained(load_run(run_dir), trained_of(run_dir)))) == EQUAL
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [AutoTokenizer.from_pretrained(folder).eos_token_id]
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(run_dir.base)
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < sum(path.stat().st_size for path in run_dir.base.glob("*.safetensors"))


@pytest.mark.parametrize(("regime", "form"), [("full", "copy"), ("lora", "merged")])
def test_a_reward_model_is_exported_with_its_head(finished: Finished, regime: str, form: str, tmp_path: Path) -> None:
    run_dir = finished("rm", regime)
    folder = exported(run_dir, tmp_path / "model", form)
    back = AutoModelForSequenceClassification.from_pretrained(folder)
    assert back.config.num_labels == 1
    assert back.config.pad_token_id == AutoTokenizer.from_pretrained(folder).pad_token_id
    assert distance(logits(back), logits(load_trained(load_run(run_dir), trained_of(run_dir)))) <= MERGED
    assert "text-classification" in (folder / "README.md").read_text()


def test_a_checkpoint_is_exported_as_it_was_at_its_step(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "full")
    first, last = (logits(AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / f"{step}", "copy", step))) for step in (1, 2))
    assert distance(first, last) > 1e-3
    assert distance(last, logits(AutoModelForCausalLM.from_pretrained(run_dir.model))) == EQUAL


def test_a_checkpoint_of_pissa_is_merged_into_the_base_that_it_belongs_to(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "pissa")
    last, final = (logits(AutoModelForCausalLM.from_pretrained(exported(run_dir, tmp_path / f"{step}", "merged", step))) for step in (2, None))
    assert distance(last, final) <= MERGED
    assert distance(final, logits(AutoModelForCausalLM.from_pretrained(run_dir.base))) > 1e-3


def test_weights_are_split_into_files_of_at_most_the_asked_size(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "full")
    limit = 100_000
    for form, source in (("copy", run_dir), ("merged", finished("sft", "lora"))):
        folder = exported(source, tmp_path / form, form, shard_size=limit)
        files = sorted(folder.glob("*.safetensors"))
        assert len(files) > 1
        # fp32: the largest tensor is the embedding, 264 x 64 x 4 = 67,584 bytes; headers take less than 4 kB here
        assert all(path.stat().st_size <= limit + 4096 for path in files)
        expected = logits(load_trained(load_run(source), trained_of(source)))
        assert distance(logits(AutoModelForCausalLM.from_pretrained(folder)), expected) <= MERGED


@pytest.mark.parametrize(("regime", "form"), [("full", "copy"), ("lora", "merged"), ("lora", "adapter")])
def test_another_dtype_is_written_and_named(finished: Finished, regime: str, form: str, tmp_path: Path) -> None:
    folder = exported(finished("sft", regime), tmp_path / "model", form, dtype="bf16")
    [file] = folder.glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}
    if form != "adapter":
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16


def test_the_tokenizer_and_what_ends_an_answer_come_along(finished: Finished, tmp_path: Path) -> None:
    folder = exported(finished("sft", "full"), tmp_path / "model", "copy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True).endswith("assistant\n")
    assert model.generation_config.eos_token_id == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert model.generation_config.pad_token_id == tokenizer.convert_tokens_to_ids("<|pad|>")


def test_the_card_tells_the_facts_of_the_run_and_no_path_of_this_machine(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "qlora4")
    card = (exported(run_dir, tmp_path / "model", "merged", commit="0123abc") / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["regimen", "sft", "qlora"]}
    losses = [json.loads(line)["loss"] for line in run_dir.progress.read_text().splitlines() if '"loss"' in line]
    for fact in (
        "| regime | qlora, 4 bits |",
        "| data sets | generated |",
        "| steps | 2, each of 4 samples",
        f"{losses[-1]:.4f} at the end",
        "0123abc",
    ):
        assert fact in card
    assert "merged into its dequantised base" in card
    assert "no licence is stated" in card
    assert str(run_dir.path.parent.parent) not in card


def test_a_damaged_checkpoint_is_refused_and_leaves_nothing(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "freeze")
    weights = run_dir.checkpoint(1) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=rf"step-1 cannot be used: .* has {len(whole) - 4} bytes instead of {len(whole)}\. Name another checkpoint"):
        exported(run_dir, tmp_path / "model", "copy", step=1)
    weights.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_final_model_is_refused_and_leaves_nothing(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "freeze")
    weights = run_dir.model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model cannot be used: .*Name a committed checkpoint"):
        exported(run_dir, tmp_path / "model", "copy")
    weights.write_bytes(whole)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_with_nan_is_not_merged(finished: Finished, tmp_path: Path) -> None:
    run_dir = finished("sft", "lora")
    file = run_dir.model / "adapter_model.safetensors"
    whole = file.read_bytes()
    save_file({name: tensor * float("nan") for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    manifest = run_dir.model / MANIFEST
    before = manifest.read_bytes()
    manifest.unlink()
    seal(run_dir.model, 2, 1)
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        exported(run_dir, tmp_path / "model", "merged")
    file.write_bytes(whole)
    manifest.write_bytes(before)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    dead, living, other = (tmp_path / name for name in (".making-model-999999999", ".making-model-1", ".making-other-999999999"))
    for folder in (dead, living, other):
        folder.mkdir()
    clear_abandoned(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [living.name, other.name]


class Hub(BaseHTTPRequestHandler):
    """Takes a repository and one commit, as huggingface_hub 2.4 sends them (_commit_api.py); the repository full/disk answers 403."""

    seen: list[tuple[str, str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        Hub.seen.append((self.path, self.headers["Authorization"], body))
        if "full/disk" in self.path or '"full"' in body:
            self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": f"http://127.0.0.1:{self.server.server_address[1]}/owner/tiny"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self.answer(200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in files]})
        else:
            self.answer(200, {"success": True, "commitOid": "0" * 40, "commitUrl": "http://127.0.0.1/owner/tiny/commit/0", "hookOutput": ""})

    def do_GET(self) -> None:
        self.answer(200, {"sha": "0" * 40, "id": "owner/tiny", "siblings": []})

    def answer(self, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        return


TOKEN = "hf_thisIsNoRealToken"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    Hub.seen = []
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_push_sends_the_exported_files_with_the_token_of_the_environment(
    finished: Finished, hub: type[Hub], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = exported(finished("sft", "lora"), tmp_path / "model", "adapter", push="owner/tiny")
    assert {authorization for _, authorization, _ in hub.seen} == {f"Bearer {TOKEN}"}
    created = json.loads(hub.seen[0][2])
    assert (created["name"], created["organization"], created["visibility"]) == ("tiny", "owner", "private")
    [commit] = [body for path, _, body in hub.seen if path == "/api/models/owner/tiny/commit/main"]
    sent = {entry["value"]["path"]: entry["value"]["content"] for entry in map(json.loads, commit.splitlines()) if entry["key"] == "file"}
    assert {name: base64.b64decode(content) for name, content in sent.items()} == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert all(str(tmp_path.parent).encode() not in path.read_bytes() for path in folder.iterdir())  # nor any path of this machine
    said = "".join(capfd.readouterr())
    assert "pushed: " in said
    assert TOKEN not in said
    assert all(TOKEN.encode() not in path.read_bytes() for path in folder.iterdir())


def test_a_push_without_a_network_leaves_the_export_and_says_how_to_go_on(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # a port at which nothing listens
    with pytest.raises(
        ValueError, match=r"owner/tiny could not be pushed to: .*refused\. Check that .*The export in .* is complete: .*hf upload owner/tiny"
    ):
        exported(finished("sft", "lora"), tmp_path / "model", "adapter", push="owner/tiny")
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


@pytest.mark.usefixtures("hub")
def test_a_push_that_the_hub_refuses_leaves_the_export_and_says_how_to_go_on(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"full/disk could not be pushed to: .*403.* HF_TOKEN .*The export in .* is complete: .*hf upload full/disk"
    ) as refusal:
        exported(finished("sft", "lora"), tmp_path / "model", "adapter", push="full/disk")
    assert TOKEN not in str(refusal.value)
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
