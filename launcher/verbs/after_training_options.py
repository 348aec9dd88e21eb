"""The command line of the verbs after training: export, predict, evaluate, chat."""

import argparse
from collections.abc import Callable
from pathlib import Path

from launcher.verbs.run_options import add_other_owner

AddParser = Callable[..., argparse.ArgumentParser]
RUN = "a run folder, last, or RUN@step-N for a committed checkpoint"


def add_after_training(add: AddParser) -> None:
    add_export(add)
    add_predict(add)
    add_evaluate(add)
    add_chat(add)


def add_output(verb: argparse.ArgumentParser) -> None:
    """Where every verb that names a run looks for it: launcher/launch/places.py."""
    where = "look for runs only there (default: outputs, and each folder that `output=` named when a run was started from this working folder)"
    verb.add_argument("--output", type=Path, metavar="FOLDER", help=where)


def add_verb(add: AddParser, name: str, what: str, act: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    verb = add(name, help=what, description=what[0].upper() + what[1:] + ".")
    verb.add_argument("run", metavar="RUN", help=RUN)
    add_output(verb)
    add_other_owner(verb)
    verb.set_defaults(act=act)
    return verb


def add_base(verb: argparse.ArgumentParser) -> None:
    """Of the verbs that ask a model something."""
    verb.add_argument("--base", action="store_true", help="ask the model as it was before the run trained it")
    verb.epilog = "RUN can also be the folder of a model that transformers loads."


def add_export(add: AddParser) -> None:
    verb = add_verb(add, "export", "write a trained model as plain transformers or PEFT files, and upload them to the hub with --push", act_export)
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--merge", dest="form", action="store_const", const="merged", help="merge an adapter into its base (the default)")
    form.add_argument("--adapter", dest="form", action="store_const", const="adapter", help="export only the adapter")
    verb.add_argument("--to", type=Path, metavar="FOLDER", help="the folder of the export (default: RUN/exports/NAME)")
    verb.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], help="dtype of the weights (default: as they were trained)")
    verb.add_argument("--shard-size", default="5GB", metavar="SIZE", help="largest size of one safetensors file (default: %(default)s)")
    verb.add_argument("--push", metavar="OWNER/NAME", help="upload to this hub repository; the token is the hub's own (HF_TOKEN or `hf auth login`)")
    verb.add_argument("--public", action="store_true", help="a repository that --push makes is public (default: private)")


def add_predict(add: AddParser) -> None:
    verb = add_verb(add, "predict", "answer the prompts of data sets, and score the answers (ROUGE, BLEU, chrF, loss)", act_predict)
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="data.sets, data.folder, data.registry, data.max_samples, data.cutoff")
    held_out = "default: the run's own held-out samples"
    verb.add_argument(
        "--data", action="append", default=[], metavar="SET", help=f"the same as data.sets=[SET]; can be given several times ({held_out})"
    )
    verb.add_argument("--all", action="store_true", help="use all of the run's own data, also what it was trained on")
    verb.add_argument(
        "--to", type=Path, metavar="FOLDER", help="the folder of the prediction, in which an interrupted one goes on (default: RUN/predictions/NAME)"
    )
    verb.add_argument("--batch", default=8, type=int, metavar="N", help="prompts at a time (default: %(default)s)")
    add_base(verb)
    add_sampling(verb, max_new_tokens=256)


def add_evaluate(add: AddParser) -> None:
    verb = add_verb(add, "evaluate", "run tasks of lm-evaluation-harness", act_evaluate)
    names = "names, separated by commas, as `lm_eval --tasks list` shows them"
    add_base(verb)
    verb.add_argument("--tasks", required=True, type=lambda text: text.split(","), metavar="TASK,...", help=names)
    verb.add_argument("--include", type=Path, metavar="FOLDER", help="a folder of task files of your own")
    verb.add_argument("--shots", type=int, metavar="N", help="examples before each question (default: as the task says)")
    verb.add_argument("--limit", type=int, metavar="N", help="use only the first N samples of each task")
    verb.add_argument("--chat-template", action="store_true", help="format the questions with the chat template")
    verb.add_argument("--to", type=Path, metavar="FILE", help="the file of the results (default: RUN/evaluations/NAME.json)")
    verb.add_argument("--batch", default=8, type=int, metavar="N", help="samples at a time (default: %(default)s)")


def add_chat(add: AddParser) -> None:
    verb = add_verb(add, "chat", "talk to a trained model in this terminal", act_chat)
    verb.add_argument("--system", metavar="TEXT", help="a system prompt; /system TEXT changes it")
    add_base(verb)
    add_sampling(verb, max_new_tokens=1024)


def add_sampling(verb: argparse.ArgumentParser, max_new_tokens: int) -> None:
    verb.add_argument("--max-new-tokens", default=max_new_tokens, type=int, metavar="N", help="most tokens of one answer (default: %(default)s)")
    verb.add_argument(
        "--temperature",
        default=0.0,
        type=float,
        metavar="T",
        help="temperature of the sampling; 0 always chooses the likeliest token (default: %(default)s)",
    )
    verb.add_argument("--top-p", default=1.0, type=float, metavar="P", help="sample among the likeliest tokens of this share (default: %(default)s)")
    verb.add_argument("--seed", default=0, type=int, metavar="N", help="seed of the sampling (default: %(default)s)")


def refuse_other_owner(arguments: argparse.Namespace) -> None:
    """Raises Unsafe for a run folder that another user can change. A model folder that no run left holds weights and texts alone."""
    from launcher.launch.foreign import Trust, refuse_foreign
    from launcher.verbs.weights import run_folder_of

    run_dir = run_folder_of(arguments.run, arguments.output)
    if run_dir is not None:
        refuse_foreign(run_dir, Trust(other_owner=arguments.other_owner))


def act_export(arguments: argparse.Namespace) -> int:
    from launcher.verbs.export import export

    refuse_other_owner(arguments)
    return export(
        arguments.run,
        arguments.output,
        wanted=arguments.form,
        to=arguments.to,
        dtype=arguments.dtype,
        shard_size=arguments.shard_size,
        push=arguments.push,
        public=arguments.public,
    )


def act_predict(arguments: argparse.Namespace) -> int:
    from conf.request import Sampling
    from launcher.verbs.ask import predict

    refuse_other_owner(arguments)
    return predict(
        arguments.run,
        arguments.output,
        sets=arguments.data,
        overrides=arguments.overrides,
        everything=arguments.all,
        to=arguments.to,
        batch=arguments.batch,
        sampling=Sampling(arguments.max_new_tokens, arguments.temperature, arguments.top_p, arguments.seed),
        base=arguments.base,
    )


def act_evaluate(arguments: argparse.Namespace) -> int:
    from launcher.verbs.ask import evaluate

    refuse_other_owner(arguments)
    return evaluate(
        arguments.run,
        arguments.output,
        tasks=arguments.tasks,
        include=arguments.include,
        shots=arguments.shots,
        limit=arguments.limit,
        to=arguments.to,
        batch=arguments.batch,
        chat=arguments.chat_template,
        base=arguments.base,
    )


def act_chat(arguments: argparse.Namespace) -> int:
    from conf.request import Sampling
    from launcher.verbs.ask import chat

    sampling = Sampling(arguments.max_new_tokens, arguments.temperature, arguments.top_p, arguments.seed)
    refuse_other_owner(arguments)
    return chat(arguments.run, arguments.output, system=arguments.system, sampling=sampling, base=arguments.base)
