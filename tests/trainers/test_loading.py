"""The lines with which docs/guides/after_training.md loads what a run leaves, run as they stand."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conf.request import Trained
from conf.run_dir import RunDir, load_run
from tests.trainers.conftest import LEARNED, QUESTIONS, trained
from trainers.after_training.trained import load_trained

REPOSITORY = Path(__file__).resolve().parents[2]
WHOLE, ADAPTER, ON_A_BASE = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/guides/after_training.md").read_text(encoding="utf-8"), re.DOTALL)

# The byte tokenizer has 260 tokens and the demo's model 264 rows: five tokens need a row more than there is.
ADDED = 'model.added_tokens=["<a>","<b>","<c>","<d>","<e>"]'
LORA = ("regime=lora", "regime.rank=32", "regime.alpha=64")
Made = Callable[..., RunDir]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run of questions that begin with an added token."""
    root = tmp_path_factory.mktemp("loading")
    (root / "questions.json").write_text(json.dumps([{"instruction": f"<e> {question}", "output": answer} for question, answer in QUESTIONS.items()]))
    data = ("data=files", "data.sets=[questions.json]", f"data.folder={root}", "data.cutoff=64", f"data.cache={root}/cache")
    runs: dict[tuple[str, ...], RunDir] = {}

    def run_of(*overrides: str) -> RunDir:
        if overrides not in runs:
            runs[overrides] = trained(root / str(len(runs)) / "once", *data, *LEARNED, "model.vocab_multiple=8", ADDED, *overrides)
        return runs[overrides]

    return run_of


def loaded(lines: str, run_dir: RunDir) -> tuple[Any, Any]:
    """The model and the tokenizer of the page's lines."""
    names: dict[str, Any] = {}
    exec(lines.replace("RUN/model", str(run_dir.model)).replace("BASE", str(run_dir.base)), names)
    return names["model"], names["tokenizer"]


@pytest.mark.parametrize(
    ("lines", "overrides"),
    [
        (WHOLE, ("regime=full",)),
        (ADAPTER, LORA),
        (ON_A_BASE, LORA),
        (ADAPTER, (*LORA, "model.architecture.tie_word_embeddings=false")),
    ],
    ids=["whole", "adapter", "adapter on a base", "adapter without tied weights"],
)
def test_the_lines_of_the_pages_load_a_model_that_answers(made: Made, lines: str, overrides: tuple[str, ...]) -> None:
    run_dir = made(*overrides)
    model, tokenizer = loaded(lines, run_dir)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "<e> What is snow?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = model.generate(**prompt, max_new_tokens=40)
    assert tokenizer.decode(written[0, prompt["input_ids"].shape[1] :]) == "White as milk.<|im_end|>"
    ours = load_trained(load_run(run_dir), Trained(str(run_dir.path), str(run_dir.model), None))
    with torch.no_grad():
        theirs, expected = model(**prompt).logits, ours(**prompt).logits
    assert torch.allclose(theirs, expected[..., : theirs.shape[-1]], atol=1e-5)  # rows that round the vocabulary up are no tokens


def test_an_adapter_holds_the_rows_that_learned_and_not_the_whole_embedding(made: Made) -> None:
    run_dir = made(*LORA)
    for folder in (run_dir.model, run_dir.checkpoint(60)):
        others = {name: tuple(tensor.shape) for name, tensor in load_file(folder / "adapter_model.safetensors").items() if ".lora_" not in name}
        assert others == {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": (5, 64)}
