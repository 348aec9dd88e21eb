"""Answers one prompt before and after training."""

import json
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from conf.run_dir import RunDir

NEW_TOKENS = 32


class Generating(TrainerCallback):
    def __init__(self, run_dir: RunDir, prompt: str, tokenizer: PreTrainedTokenizerBase, leads: bool) -> None:
        self.run_dir, self.prompt, self.tokenizer, self.leads = run_dir, prompt, tokenizer, leads

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if state.global_step == 0:
            self.write([{"when": "before", "prompt": self.prompt, "answer": self.answer(model)}])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            answer = self.answer(model)
            before = json.loads(self.run_dir.samples.read_text(encoding="utf-8")) if self.run_dir.samples.exists() else []
            self.write([*before, {"when": "after", "prompt": self.prompt, "answer": answer}])

    def answer(self, model: Any) -> str:
        """Greedy, on every rank alike: under ZeRO-3 and FSDP each forward gathers weights from all of them."""
        tokens = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": self.prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        training = model.training
        model.eval()
        with torch.no_grad():
            out = model.generate(**tokens, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=self.tokenizer.pad_token_id, synced_gpus=False)
        model.train(training)
        return str(self.tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    def write(self, samples: list[dict[str, str]]) -> None:
        if self.leads:
            self.run_dir.samples.write_text(json.dumps(samples, ensure_ascii=False, indent=1), encoding="utf-8")
