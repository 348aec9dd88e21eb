"""The options of `train` and `plan`, and the description of a run that several verbs share; what they do is imported when they are called."""

import argparse
import gc
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

from conf.groups import built_in_choices, built_in_groups, default_choices
from conf.private import keep_private
from launcher.errors import ConfigError

AddParser = Callable[..., argparse.ArgumentParser]
OVERRIDES = """Overrides have the form key=value or group=choice, as in Hydra:
  regimen train model=qwen2.5_0.5b data=files 'data.sets=[my.jsonl]' regime=lora regime.rank=32
A file FILE.yaml with a key or a choice a line (regime: lora) may stand before them: regimen train FILE.yaml optim.lr=1e-4
If they name no model, no data and no recipe, recipe=demo is used. resume=RUN goes on with a run (train and plan).
docs/reference/keys.md explains every key, docs/reference/own_groups.md choices of your own.

Groups and their choices:
"""


def composing(verb: argparse.ArgumentParser) -> None:
    verb.formatter_class = argparse.RawDescriptionHelpFormatter
    verb.epilog = OVERRIDES + group_lines()
    verb.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="an override, or a file of them; see below")
    own_groups = "a folder with choices of your own; can be given several times"
    verb.add_argument("--config-dir", "-cd", action="append", default=[], type=Path, metavar="FOLDER", help=own_groups)
    verb.add_argument("--cfg", action="store_true", help="print the composed configuration and do nothing")


def add_train(add: AddParser) -> None:
    train = add("train", help="judge a run, start it, and follow it to its end", description="Judge a run, start it, and follow it to its end.")
    composing(train)
    train.add_argument(
        "--multirun",
        "-m",
        action="store_true",
        help="a sweep: each combination of values that commas separate is a run; resume=SWEEP goes on with one",
    )
    train.add_argument("--detach", action="store_true", help="return at once; `regimen status --follow` attaches again")
    train.add_argument("--wait", action="store_true", help="with cluster=slurm: follow the submitted job to its end, and end with its exit code")
    train.add_argument("--dry-run", action="store_true", help="do the same as `regimen plan`")
    known_dead = "resume= a run whose owner cannot be judged from here: you know that it has ended"
    train.add_argument("--take-over", action="store_true", help=known_dead)
    add_other_owner(train)
    train.set_defaults(act=act_train)


def add_other_owner(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--other-owner", action="store_true", help="RUN may belong to another user: you trust who can write into its folder")


def add_plan(add: AddParser) -> None:
    plan = add("plan", help="show what train would do: memory, verdict, command", description="Show what train would do: memory, verdict, command.")
    composing(plan)
    plan.add_argument("--multirun", "-m", action="store_true", help="a sweep: a line for each point with its verdict and, if refused, what would fit")
    views = plan.add_mutually_exclusive_group()
    views.add_argument(
        "--matrix", action="store_true", help="show for every regime on this node its published need, its predicted need, and whether it is permitted"
    )
    views.add_argument("--explain", action="store_true", help="show every memory term of every phase with its source")
    views.add_argument("--json", action="store_true", help="print the plan as JSON, with sizes in bytes")
    views.add_argument("--picture", type=Path, metavar="FILE", help="draw the memory of every phase against the capacity (.png, .svg, .pdf or .jpg)")
    views.add_argument(
        "--save", type=Path, metavar="FILE.yaml", help="write the run as a file for `regimen train FILE.yaml`: choices, changed values"
    )
    views.add_argument("--diff", metavar="RUN", help="show what differs from the configuration of that run")
    views.add_argument("--as", dest="kind", choices=("skypilot", "trainjob"), help="print the run as a task of SkyPilot or a TrainJob of Kubeflow")
    plan.add_argument("--image", metavar="IMAGE", help="with --as: the container image of the job, in which regimen is installed")
    plan.set_defaults(act=act_plan)


def group_lines() -> str:
    """The groups and choices, with the default of each."""
    defaults = default_choices()
    marked = {
        group: [f"{name} (default)" if name == defaults.get(group) != "default" else name for name in built_in_choices(group)]
        for group in built_in_groups()
    }
    return "\n".join(
        textwrap.fill(", ".join(names), 110, initial_indent=f"  {group:<12}", subsequent_indent=14 * " ") for group, names in marked.items()
    )


def act_train(arguments: argparse.Namespace) -> int:
    from launcher.launch.foreign import Trust
    from launcher.launch.tasks import refuse_tasks
    from launcher.verbs import plan, train

    keep_private()
    if arguments.multirun:
        refuse_with_multirun(arguments)
    if arguments.cfg:
        return plan.show_configuration(arguments.overrides, arguments.config_dir)
    if arguments.dry_run and arguments.multirun:
        return plan_sweep(arguments)
    if arguments.dry_run:
        return plan.show_plan(arguments.overrides, arguments.config_dir)
    refuse_tasks(os.environ)
    for given, option in ((arguments.take_over, "--take-over"), (arguments.other_owner, "--other-owner")):
        if given and not any(text.startswith("resume=") for text in arguments.overrides):
            raise ConfigError(f"{option} names no run. Write: regimen train {'-m resume=SWEEP' if arguments.multirun else 'resume=RUN'} {option}")
    if arguments.multirun:
        from launcher.sweep.multirun import multirun

        return multirun(arguments.overrides, arguments.config_dir, Trust(arguments.take_over, arguments.other_owner))
    return train.train(arguments.overrides, arguments.config_dir, arguments.detach, Trust(arguments.take_over, arguments.other_owner), arguments.wait)


def refuse_with_multirun(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for what a sweep cannot do, with the line that can."""
    one_run = "It shows one run. Give one value for each key and leave -m out."
    shown = ((f"--{name}", one_run) for name in ("cfg", "matrix", "explain", "picture", "save", "diff"))
    for option, instead in (*shown, ("--wait", "A sweep is followed anyway."), ("--detach", "Write: nohup regimen train -m ... &")):
        if vars(arguments).get(option[2:]):
            raise ConfigError(f"{option} is not possible with -m. {instead}")


def plan_sweep(arguments: argparse.Namespace) -> int:
    from launcher.sweep.dry import show_points

    return show_points(arguments.overrides, arguments.config_dir, vars(arguments).get("json", False))


def act_plan(arguments: argparse.Namespace) -> int:
    gc.disable()  # a plan leaves nothing worth collecting, and looking for it takes a twentieth of the time
    try:
        return show_plan(arguments)
    finally:
        gc.enable()


def show_plan(arguments: argparse.Namespace) -> int:
    from launcher.verbs import plan

    if arguments.image is not None and not arguments.kind:
        raise ConfigError(f"--image {arguments.image} belongs to a rendered job. Add --as skypilot or --as trainjob, or leave it out.")
    if arguments.multirun:
        refuse_with_multirun(arguments)
        return plan_sweep(arguments)
    if arguments.cfg:
        return plan.show_configuration(arguments.overrides, arguments.config_dir)
    if arguments.diff:
        return plan.show_difference(arguments.overrides, arguments.config_dir, arguments.diff)
    if arguments.save:
        return plan.save_run_file(arguments.overrides, arguments.config_dir, arguments.save)
    if arguments.json:
        return plan.show_plan_json(arguments.overrides, arguments.config_dir)
    if arguments.matrix:
        return plan.show_matrix(arguments.overrides, arguments.config_dir)
    if arguments.kind:
        return plan.show_job(arguments.overrides, arguments.config_dir, arguments.kind, arguments.image)
    if arguments.picture:
        from launcher.verbs.pictures import draw_plan

        return draw_plan(arguments.overrides, arguments.config_dir, arguments.picture)
    if arguments.explain:
        return plan.explain(arguments.overrides, arguments.config_dir)
    return plan.show_plan(arguments.overrides, arguments.config_dir)
