"""FSDP2 on two ranks reads a model from its files, and saves it: each rank its share, with the same bits as where every rank reads all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.distributed

SCRIPT = Path(__file__).with_name("read_shares.py")
SIZES = {
    "vocab_size": 8001,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
}  # 8001: no even halves


@pytest.mark.parametrize("tied", [False, pytest.param(True, marks=pytest.mark.long)])
def test_each_rank_reads_and_writes_its_share_of_the_same_bits(tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=8, tie_word_embeddings=tied, dtype="bfloat16")).to(torch.bfloat16)
    size = 4 * sum(weight.numel() for weight in model.parameters())  # of fp32 ones
    model.save_pretrained(tmp_path / "model", max_shard_size="40MB")
    repository = str(SCRIPT.parents[2])
    argv = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT), str(tmp_path / "model"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(lines[-1])

    assert (found["differ"], 4 * found["elements"]) == (0, size)
    assert found["compared"] == len(list(model.parameters()))
    assert found["whole"] > 2 * size  # each of two ranks held all of it
    assert found["shares"] < 1.5 * size  # one model on both, and what is being read

    # A checkpoint of weights and two states, three times the size, and the model beside it: a file of 40 MB is held, or a tensor that is written.
    assert found["wrong"] == 0, done.stderr[-3000:]
    assert found["save"] < 0.6 * size
    files = sorted(path.name for path in (tmp_path / "model" / "out" / "step-1").glob("*.safetensors"))
    count = 9 if tied else 10  # of 25 MB each: the embedding, eight layers, the head
    assert (files[0], len(files)) == (f"model-00001-of-{count:05d}.safetensors", count)
    assert {path.name for path in (tmp_path / "model" / "out" / "step-1" / "optimizer_0").iterdir()} == {".metadata", "__0_0.distcp", "__1_0.distcp"}
