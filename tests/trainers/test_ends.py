"""What a run leaves stops where its template ends an answer, by plain transformers and PEFT, though the base's tokenizer ends texts otherwise."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from conf.request import Trained
from conf.run_dir import RunDir, load_run
from tests.described import described
from tests.trainers.conftest import LEARNED, QUESTIONS, trained
from trainers.after_training.trained import load_trained
from trainers.model.tokenizer import byte_tokenizer

REGIMES = {"full": ("regime=full",), "lora": ("regime=lora", "regime.rank=32", "regime.alpha=64")}
Made = Callable[[str, str], RunDir]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As base models are published: ChatML in the tokenizer, whose end token is another than that of a turn."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    architecture = {**described("model=demo", "data=demo", "node=cpu").model.architecture, "hidden_size": 64, "intermediate_size": 128}
    set_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in architecture.items() if key != "model_type"}))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run that knows its answers by heart, from random weights or from the files of the base."""
    root = tmp_path_factory.mktemp("ends")
    (root / "questions.json").write_text(json.dumps([{"instruction": question, "output": answer} for question, answer in QUESTIONS.items()]))
    data = ("data=files", "data.sets=[questions.json]", f"data.folder={root}", "data.cutoff=64", f"data.cache={root}/cache")
    runs: dict[tuple[str, str], RunDir] = {}

    def run_of(regime: str, weights: str) -> RunDir:
        if (regime, weights) not in runs:
            model = (f"model.tokenizer={base}",) if weights == "random" else ("model.init=pretrained", f"model.path={base}", "model.tokenizer=null")
            runs[regime, weights] = trained(root / regime / weights, *data, *LEARNED, *REGIMES[regime], *model)
        return runs[regime, weights]

    return run_of


def answer_of(model: PreTrainedModel | PeftModel, folder: Path, **settings: object) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": "What is the sky?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**prompt, max_new_tokens=30, **settings)
    return str(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :]))


@pytest.mark.parametrize("regime", ["full", "lora"])
def test_the_model_folder_stops_by_itself(made: Made, regime: str) -> None:
    run_dir = made(regime, "random")
    assert answer_of(AutoModelForCausalLM.from_pretrained(run_dir.model), run_dir.model) == "Blue.<|im_end|>"


def test_an_adapter_stops_on_a_base_that_ends_otherwise(made: Made, base: Path) -> None:
    run_dir = made("lora", "files")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run_dir.model)
    ends = GenerationConfig.from_pretrained(run_dir.model)
    assert answer_of(model, run_dir.model, generation_config=ends) == "Blue.<|im_end|>"
    assert (
        GenerationConfig.from_pretrained(base).eos_token_id == AutoTokenizer.from_pretrained(base).eos_token_id
    )  # the user's files stay as they are


@pytest.mark.parametrize(("regime", "weights"), [("full", "random"), ("lora", "files")])
def test_checkpoints_and_verbs_end_at_both_tokens(made: Made, regime: str, weights: str) -> None:
    run_dir = made(regime, weights)
    both = sorted(AutoTokenizer.from_pretrained(run_dir.model).convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]))
    for folder in (run_dir.model, run_dir.checkpoint(60)):
        assert GenerationConfig.from_pretrained(folder).eos_token_id == both
    model = load_trained(load_run(run_dir), Trained(str(run_dir.path), str(run_dir.model), None))
    assert model.generation_config.eos_token_id == both  # that of `regimen evaluate`, whose library asks nobody else


def test_training_warns_as_validation_does(made: Made) -> None:
    told = made("full", "random").notes.read_text(encoding="utf-8")
    assert "data: 4 samples: 4 to train" in told
    assert "WARNING: tokenizer against model: eos: answers end with '<|im_end|>', but the tokenizer's end token is '<|endoftext|>'." in told
    assert "GenerationConfig.from_pretrained('RUN/model')" not in told
    assert "model.generation_config = GenerationConfig.from_pretrained('RUN/model')." in made("lora", "files").notes.read_text(encoding="utf-8")
