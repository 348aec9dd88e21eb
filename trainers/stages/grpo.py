"""Group relative policy optimisation (arXiv:2402.03300) through TRL: answers to one prompt are judged against each other.

Every optimizer step writes its answers anew, so that a checkpoint needs no answers and a resumed run goes on exactly.
"""

import copy
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Trainer
from trl import GRPOConfig, GRPOTrainer

from conf.run_dir import RunDir
from conf.schema import Grpo, Run
from trainers.arguments import training_arguments
from trainers.measures.phases import answering
from trainers.model.answers import until_end
from trainers.model.conversation import stop_tokens
from trainers.model.tokenizer import end_token
from trainers.ranks.stop import answers_end_when_asked, leave_if_asked
from trainers.regimes import PreparedModel, with_adapter
from trainers.reinforcement.prompts import RepeatedPrompts, epoch_of
from trainers.reinforcement.reference import placed_reference
from trainers.reinforcement.reward_model import Judge, load_judge
from trainers.reinforcement.rewards import Reward, reward_functions
from trainers.stages.shared.evaluation import Evaluating, Fraction, each, means_of
from trainers.stages.shared.material import Material
from trainers.stages.shared.preferences import AsPrepared, load_reference, settled, with_float_logits

MODEL_CLASS = AutoModelForCausalLM
Row = dict[str, Any]  # prompt_ids, prompt, answer


class GrpoTrainer(AsPrepared, Evaluating, GRPOTrainer):
    """TRL's, with prompts that are tokenised already, an order of prompts that survives a resume, and an evaluation that says something."""

    prompt_ids: list[list[int]]
    judged: Tensor  # the rewards of the last answers by each function, of all ranks

    def end_answers_as(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """TRL knows one end token; a template may end answers with another one than the tokenizer's, and then either is an end."""
        ends = stop_tokens(tokenizer)
        self.generation_config.eos_token_id = self.generation_kwargs["eos_token_id"] = ends
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.eos_token = end_token(tokenizer)  # what counts as unfinished ends with no such token

    def _get_train_sampler(self, dataset: Dataset | None = None) -> RepeatedPrompts:
        return RepeatedPrompts(
            len(self.train_dataset),
            batch=self.args.generation_batch_size // self.num_generations,
            copies=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
            epoch=lambda: epoch_of(self.state),
        )

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Tensor]:
        self.prompt_ids = [row["prompt_ids"] for row in inputs]
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)
        with answering(self.callback_handler.callbacks):
            return super()._generate_and_score_completions(inputs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """TRL would put a second beginning-of-text token before the rendered prompt."""
        return self.prompt_ids, None, {}

    def _generate_single_turn(self, *arguments: Any, **keywords: Any) -> tuple[list[list[int]], None]:
        """Without dropout, out of sight of what counts the tokens of training passes, and in the precision of those: TRL unwraps the model first."""
        training = self.model.training
        self.model.eval()
        with self.accelerator.autocast(), answers_end_when_asked(self.model):
            written, _ = super()._generate_single_turn(*arguments, **keywords)
        leave_if_asked()
        self.model.train(training)
        return [until_end(answer, self.generation_config.eos_token_id) for answer in written], None

    def _calculate_rewards(self, *arguments: Any) -> Tensor:
        self.judged = super()._calculate_rewards(*arguments)
        return self.judged

    def measure(self, model: nn.Module, batch: list[Row]) -> dict[str, Fraction]:
        """One sampled answer to each prompt; an answer that no function judges does not count."""
        answered = self._prepare_inputs(batch)
        self._metrics["eval"].clear()  # TRL's are means of the answers of all ranks, counted or not
        judged = self.judged.unflatten(0, (self.args.world_size, len(batch)))[self.args.process_index]
        rewards = (judged * self.reward_weights.to(judged)).nansum(1)
        parts = {"reward": each(rewards, ~judged.isnan().all(1))}
        return {**parts, "kl": self.divergence(model, answered)} if self.beta else parts

    def divergence(self, model: nn.Module, answered: dict[str, Tensor]) -> Fraction:
        """Of the tokens of answers, as TRL estimates it in training."""
        tokens, attention = (torch.cat([answered[f"prompt_{name}"], answered[f"completion_{name}"]], 1) for name in ("ids", "mask"))
        mask = answered["completion_mask"]
        logps, *_ = self._get_per_token_logps_and_entropies(model, tokens, attention, mask.shape[1])
        lead = answered["ref_per_token_logps"] - logps
        return Fraction(((lead.exp() - lead - 1) * mask).sum(), mask.sum())

    def conclude(self, parts: dict[str, Fraction]) -> dict[str, float]:
        """The loss of an evaluation is minus its reward: TRL's own compares each answer with itself alone."""
        means = means_of(parts)
        return {**means, "loss": -means["reward"]} if "reward" in means else means


def build_arguments(run: Run, run_dir: RunDir, has_evaluation: bool) -> GRPOConfig:
    stage = run.stage
    assert isinstance(stage, Grpo)
    reward_functions(stage)  # an import error must appear before the model is loaded
    return GRPOConfig(
        **training_arguments(run, run_dir, has_evaluation),
        num_generations=stage.generations,
        num_generations_eval=1,
        max_completion_length=stage.response_length,
        temperature=stage.temperature,
        beta=0.0,  # else TRL loads a reference of its own, in fp32; ours is set in build_trainer
        epsilon=stage.epsilon,
        loss_type=stage.loss_type,
        scale_rewards=stage.scale_rewards,
        router_aux_loss_coef=0.0,  # as in stage=sft
    )


def build_trainer(run: Run, arguments: GRPOConfig, prepared: PreparedModel, material: Material) -> Trainer:
    stage = run.stage
    assert isinstance(stage, Grpo)
    reference = load_reference(run, MODEL_CLASS, prepared) if stage.kl_coef else None
    judged = [] if stage.reward_model is None else [by_model(load_judge(stage.reward_model, run, material.tokenizer, arguments))]
    with_float_logits(prepared.model)
    trainer = GrpoTrainer(
        model=with_adapter(prepared, run),
        reward_funcs=[*reward_functions(stage), *judged],
        args=arguments,
        **material.keywords,
    )
    trainer.end_answers_as(material.tokenizer)
    trainer.beta = stage.kl_coef
    trainer.ref_model = None if reference is None else placed_reference(reference, trainer)
    return settled(trainer, run)


def by_model(judge: Judge) -> Reward:
    def reward_model(prompt_ids: list[list[int]], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        rows = [prompt + answer for prompt, answer in zip(prompt_ids, completion_ids, strict=True)]
        return [*judge(rows).tolist()]

    return reward_model
