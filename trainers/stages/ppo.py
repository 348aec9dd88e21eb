"""Proximal policy optimisation (arXiv:1707.06347) against a reward model. The policy itself has a head for values: no value model is held beside it.

TRL's loop cannot resume. Here every optimizer step is one of transformers' Trainer, so that this stage can do what the others can; a rollout of
answers lasts for stage.epochs x stage.mini_batches of them, and a checkpoint in between keeps it.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from trl.trainer.utils import disable_dropout_in_model

from conf.run_dir import RunDir
from conf.schema import Ppo, Run
from trainers.arguments import training_arguments
from trainers.measures.phases import answering
from trainers.model.answers import greedy, sampling, write_answers
from trainers.model.build import adapter_dtype
from trainers.ranks.stop import leave_if_asked
from trainers.regimes import PreparedModel, with_adapter
from trainers.reinforcement.measures import Measures
from trainers.reinforcement.objective import policy_loss, value_loss
from trainers.reinforcement.policy import VALUE_HEAD, Answered, add_value_head
from trainers.reinforcement.prompts import RepeatedPrompts, epoch_of
from trainers.reinforcement.reference import placed_reference
from trainers.reinforcement.reward_model import Judge, load_judge
from trainers.reinforcement.rollout import Batch, Rollout, batch_of, load_rollout, save_rollout
from trainers.reinforcement.whole_weights import whole_weights
from trainers.reinforcement.written import Written, read_back, rollout_of
from trainers.stages.shared.evaluation import Evaluating, Fraction, each, means_of
from trainers.stages.shared.material import Material
from trainers.stages.shared.preferences import load_reference

MODEL_CLASS = AutoModelForCausalLM
HEAD_FILE = "value_head.safetensors"
Row = dict[str, Any]  # prompt_ids, prompt, answer


class PpoTrainer(Evaluating):
    """By inheritance, since transformers' Trainer offers no other way to make batches, losses and what a checkpoint keeps."""

    loss_is_scaled_for_ga = True  # by the tokens of a whole mini batch, so that accumulated passes make the step of one large pass

    def __init__(self, run: Run, judge: Judge, **keywords: Any) -> None:
        super().__init__(**keywords)
        assert isinstance(run.stage, Ppo)
        self.stage, self.judge = run.stage, judge
        self.reference: nn.Module | None = None
        self.rollout: Rollout | None = None
        self.passes = 0  # of the optimizer step that is being made
        self.measures = Measures()
        self.rollout_steps = self.stage.epochs * self.stage.mini_batches
        self.rollout_size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.stage.mini_batches
        set_seed(self.args.seed, device_specific=True)  # ranks sample answers of their own

    def get_train_dataloader(self) -> DataLoader[list[Row]]:
        return self._get_dataloader(self.train_dataset, "Training", batch_size=self.rollout_size, sampler_fn=self.prompts_in_turn, is_training=True)

    def prompts_in_turn(self, dataset: Dataset) -> RepeatedPrompts:
        repeats = self.rollout_steps * self.args.gradient_accumulation_steps
        at_once = self.rollout_size * self.args.world_size
        return RepeatedPrompts(len(dataset), at_once, copies=1, repeats=repeats, seed=self.args.seed, epoch=lambda: epoch_of(self.state))

    def training_step(self, model: nn.Module, inputs: list[Row], num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.passes = (self.passes + 1) % self.args.gradient_accumulation_steps
        return loss

    def _prepare_inputs(self, inputs: list[Row]) -> Batch:
        """The rows of this forward pass: of a new rollout over `inputs`, or of the one at hand, for which `inputs` is repeated."""
        number = self.state.global_step % self.rollout_steps * self.args.gradient_accumulation_steps + self.passes
        if number == 0:
            with answering(self.callback_handler.callbacks):
                self.rollout = self.roll_out([row["prompt_ids"] for row in inputs])
        assert self.rollout is not None, "a checkpoint keeps the rollout that it was made in"
        return batch_of(self.rollout, number, self.args.train_batch_size)

    def roll_out(self, prompts: list[list[int]]) -> Rollout:
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            written = self.answer(prompts, sampling(self.stage.response_length, self.stage.temperature, self.processing_class))
            policy, reference = read_back(self.model, self.reference, written, self.stage.temperature, self.args.train_batch_size)
        self.model.train()
        note_rollout(self.measures, written, policy, reference)
        return rollout_of(written, policy, reference, self.stage)

    def answer(self, prompts: list[list[int]], config: GenerationConfig) -> Written:
        """Answers, as many at once as a rank uses for an optimizer step, and their scores."""
        at_once = self.args.train_batch_size * self.args.gradient_accumulation_steps
        batches = [prompts[start : start + at_once] for start in range(0, len(prompts), at_once)]
        with whole_weights(self):
            answers = [row for batch in batches for row in write_answers(self.model, batch, config)]
        leave_if_asked()
        scores = self.judge([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
        return Written(prompts, answers, scores, config.eos_token_id, config.pad_token_id)

    def compute_loss(self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None) -> Tensor:
        answered: Answered = model(**inputs.forward, answers=inputs.answers, temperature=self.stage.temperature)
        policy, clipped = policy_loss(answered.logprobs, inputs.logprobs, inputs.advantages, self.stage.cliprange)
        value = value_loss(answered.values, inputs.values, inputs.returns, self.stage.cliprange_value)
        for name, values in {"policy_loss": policy, "value_loss": value, "clip_ratio": clipped.float()}.items():
            self.measures.note(name, values, inputs.answer_mask)
        return ((policy + self.stage.vf_coef * value) * inputs.answer_mask).sum() / inputs.tokens.to(policy)

    def measure(self, model: nn.Module, batch: list[Row]) -> dict[str, Fraction]:
        with self.accelerator.autocast():
            written = self.answer([row["prompt_ids"] for row in batch], greedy(self.stage.response_length, self.processing_class))
        return {"reward": each(written.scores)}

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """The loss of an evaluation is minus the reward of the likeliest answers, so that the lowest is the best."""
        means = means_of(parts)
        return {**means, "loss": -means["reward"]}

    def log(self, logs: dict[str, float], *arguments: Any, **keywords: Any) -> None:
        if "eval_loss" not in logs:
            logs.update(self.measures.take())
        super().log(logs, *arguments, **keywords)

    def _save_rng_state(self, output_dir: str) -> None:
        """With what else no other file of a checkpoint holds. DeepSpeed's and FSDP's own files hold the head."""
        super()._save_rng_state(output_dir)
        if self.rollout is not None and self.state.global_step % self.rollout_steps:
            save_rollout(self.rollout, self.rollout_file(output_dir))
        if self.args.should_save and not self.is_deepspeed_enabled and not self.is_fsdp_enabled:
            save_file(self.model.get_submodule(VALUE_HEAD).state_dict(), Path(output_dir, HEAD_FILE))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self.rollout_file(checkpoint).exists():
            self.rollout = load_rollout(self.rollout_file(checkpoint), self.args.device)
        if checkpoint is not None and Path(checkpoint, HEAD_FILE).exists():
            self.model.get_submodule(VALUE_HEAD).load_state_dict(load_file(Path(checkpoint, HEAD_FILE)))

    def rollout_file(self, folder: str) -> Path:
        return Path(folder, f"rollout_{self.args.process_index}.safetensors")


def note_rollout(measures: Measures, written: Written, policy: Answered, reference: Tensor) -> None:
    mask = written.mask.to(policy.logprobs.device)
    measures.note("reward", written.scores)
    measures.note("kl", policy.logprobs - reference, mask)
    measures.note("entropy", policy.entropies, mask)
    measures.note("completions/mean_length", mask.sum(1).float())
    measures.note("completions/clipped_ratio", (~written.ended).float())


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> TrainingArguments:
    return TrainingArguments(**training_arguments(run, run_dir, has_evaluation))


def build_trainer(run: Run, arguments: TrainingArguments, prepared: PreparedModel, material: Material) -> Trainer:
    assert isinstance(run.stage, Ppo)
    judge = load_judge(str(run.stage.reward_model), run, material.tokenizer, arguments)
    reference = load_reference(run, MODEL_CLASS, prepared)
    policy = with_adapter(prepared, run)
    disable_dropout_in_model(policy)  # an answer is as likely when it is learned from as when it was written
    add_value_head(policy, head_dtype(run, policy))
    trainer = PpoTrainer(
        run,
        judge,
        model=policy,
        args=arguments,
        data_collator=list,
        **material.keywords,
    )
    trainer.reference = None if reference is None else placed_reference(reference, trainer)
    return trainer


def head_dtype(run: Run, policy: PreTrainedModel) -> torch.dtype:
    """ZeRO-3 has made the weights 16 bits by now, and accepts weights that learn in one dtype only."""
    return policy.get_output_embeddings().weight.dtype if is_deepspeed_zero3_enabled() else adapter_dtype(run)
