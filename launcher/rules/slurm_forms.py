"""How each value of cluster=slurm is written, so that it can stand in a batch script as a value and nothing else."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from conf.environment import FromEnvironment
from conf.schema import Slurm
from conf.sizes import SIZE
from launcher.errors import ConfigError, Unsafe

NAME = r"[A-Za-z0-9_][\w.+@:-]*"
TIME = re.compile(r"(?:([0-9]+)-)?([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])")
JOBS = r"(after|afterany|afterok|afternotok|aftercorr|afterburstbuffer)(:[0-9]+(_[0-9]+)?(\+[0-9]+)?)+"
# sbatch(1), --mail-type and --begin
EVENT = "(NONE|ALL|BEGIN|END|FAIL|REQUEUE|INVALID_DEPEND|STAGE_OUT|TIME_LIMIT(_90|_80|_50)?|ARRAY_TASKS)"
CLOCK = r"([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?"
DAY = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
MOMENT = rf"(now|today|tomorrow|midnight|noon|fika|teatime)(\+[0-9]+(seconds?|minutes?|hours?|days?|weeks?)?)?|{CLOCK}|{DAY}(T{CLOCK})?"
LIST_OF_NODES = r"[A-Za-z0-9_][\w.,\[\]-]*"
PATH = r"/[\w./+@=-]*"  # of a mount: a comma would begin another one, and a colon its other side
WHOLE = ("ALL", "NONE", "NIL")  # words of --export of sbatch, in small and capital letters: all variables, or none
SITE_DEFAULT = "default"  # of cluster.memory: no --mem


@dataclass(frozen=True)
class Form:
    """One row: how a value is written, as sbatch(1) describes it."""

    pattern: str
    words: str  # what to write
    example: str


# Every pattern starts with a letter or digit, and none accepts quotes, $ or #: a newline would end the directive, and what follows it would run.
# Of a list each element has the form.
FORMS: dict[str, Form] = {
    "name": Form(r"\w[\w.+@:=,-]*", "letters, digits and _ . + @ : = , -", "demo"),
    "cluster.partition": Form(r"[A-Za-z0-9_][\w.,-]*", "a name, or several with commas between them", "gpu"),
    "cluster.account": Form(NAME, "a name", "lab_7"),
    "cluster.qos": Form(NAME, "a name", "high"),
    "cluster.time": Form(TIME.pattern, "HH:MM:SS or D-HH:MM:SS", "08:00:00"),
    "cluster.gpu_type": Form(r"[A-Za-z0-9_][\w.-]*", "a name", "h100"),
    "cluster.gpu_types": Form(r"[A-Za-z0-9_][\w.:+ -]*", "TYPE:CARD or TYPE:NAME:MEMORY:TFLOPS", "a100:a100_80"),
    "cluster.memory": Form(f"{SITE_DEFAULT}|{SIZE.pattern}", "a number and its unit", "64GB"),
    "cluster.constraint": Form(r"[A-Za-z0-9_(\[][\w.,&|*()\[\]-]*", "features with & or | between them", "nvlink"),
    "cluster.reservation": Form(NAME, "a name", "course"),
    "cluster.exclude": Form(LIST_OF_NODES, "nodes with commas between them", "node[3-5,7]"),
    "cluster.licenses": Form(r"[A-Za-z0-9_][\w.@:,-]*", "names with commas between them, each with :COUNT where it is not 1", "solver:2"),
    "cluster.mail_user": Form(r"[A-Za-z0-9_][\w.+-]*@[A-Za-z0-9][\w.-]*", "an address", "me@example.org"),
    "cluster.mail_type": Form(
        f"{EVENT}(,{EVENT})*", "BEGIN, END, FAIL, REQUEUE, TIME_LIMIT, ALL or another event of sbatch, with commas between them", "END,FAIL"
    ),
    "cluster.comment": Form(r"\w[\w.+@:=,/-]*", "letters, digits and _ . + @ : = , / -", "paper-2"),
    "cluster.dependency": Form(rf"singleton|{JOBS}([,?]{JOBS})*", "as sbatch has it", "afterok:4711"),
    "cluster.after": Form(r"[\w/.~][\w./+@:=,~-]*", "a run folder, the name of a run, or last", "last"),
    "cluster.directives": Form(r"[a-z][a-z-]*(=[A-Za-z0-9_][\w.,:+@\[\]/-]*)?", "an option of sbatch without its dashes", "nice=100"),
    "cluster.setup": Form(
        r"(module (load|use|unload|swap|purge)|ml|conda activate|mamba activate|spack load)( [\w/.~][\w./+@:=,~-]*)*",
        "module load, use, unload, swap or purge, ml, conda activate, mamba activate or spack load, and its words",
        "module load cuda/12.4",
    ),
    "cluster.export": Form(r"[A-Za-z_]\w*", "the name of a variable", "HF_HOME"),
    "cluster.container": Form(r"[A-Za-z0-9_/][\w./+@:=,#-]*", "the path or the address of an image", "/images/regimen.sif"),
    "cluster.container_runtime": Form("pyxis|apptainer", "pyxis or apptainer", "apptainer"),
    "cluster.container_mounts": Form(
        rf"{PATH}(:{PATH}(:(ro|rw))?)?", "FOLDER, FOLDER:INSIDE or FOLDER:INSIDE:ro without a comma", "/scratch:/scratch"
    ),
    "cluster.container_python": Form(r"[A-Za-z0-9_/][\w./+-]*", "a path or the name of a program", "/usr/bin/python3"),
    # `%` is a pattern to sbatch, and white space would end --output
    "the run folder": Form(r"/[\w./+@:=,-]*", "a path of letters, digits and / . _ + @ : = , -", "/home/me/outputs"),
}
HARMLESS = re.compile(r"[\w.,:+@&|*()\[\]/=%~-]*")  # none of these ends a value in the script

# Options of sbatch that change neither what is planned nor what the script relies on, and how the value of each is written; None: it has none.
NUMBER, NODE_LIST = r"-?[0-9]+", LIST_OF_NODES
FURTHER: dict[str, str | None] = {
    **dict.fromkeys(("begin", "deadline"), MOMENT),
    **dict.fromkeys(("contiguous", "spread-job", "use-min-nodes", "reboot"), None),
    **dict.fromkeys(("core-spec", "thread-spec", "threads-per-core", "cores-per-socket", "sockets-per-node", "mincpus"), r"[0-9]+"),
    "nice": NUMBER,
    "priority": r"[0-9]+",
    "nodelist": NODE_LIST,
    "tmp": r"[0-9]+[KMGT]?",
    "switches": r"[0-9]+(@[0-9:-]+)?",
    "hint": r"compute_bound|memory_bound|multithread|nomultithread",
    "distribution": r"[a-zA-Z*,:]+",
    "cpu-freq": r"[\w:-]+",
    "gpu-freq": r"[\w,=]+",
    "gpu-bind": r"[\w:,*+]+",
    "network": r"[\w,=]+",
    "prefer": r"[\w.&|-]+",
    "profile": r"[a-z,]+",
    "acctg-freq": r"[\w,=]+",
    "delay-boot": r"[0-9]+",
    "time-min": TIME.pattern,
    "wckey": NAME,
    "bb": NAME,
}
# sbatch reads these from the environment too (sbatch(1), INPUT ENVIRONMENT VARIABLES); what else there is stands only in the script.
READ_FROM_ENVIRONMENT = frozenset({"partition", "account", "qos", "time", "memory", "constraint", "reservation"})


def written_values(cluster: Slurm) -> Iterator[tuple[str, str]]:
    """Key and value of each text that a cluster states; of a list each element."""
    for key in FORMS:
        value = getattr(cluster, key.removeprefix("cluster."), None) if key.startswith("cluster.") else None
        for text in value if isinstance(value, list) else [] if value is None else [value]:
            yield key, text


def refuse_other_values(cluster: Slurm) -> None:
    """Raises ConfigError or Unsafe for the first value that sbatch would not accept, or could take for more than a value."""
    for key, text in written_values(cluster):
        refuse_other_form(key, text)
    for directive in cluster.directives:
        refuse_other_directive(directive)
    refuse_directive_twice(cluster.directives)
    refuse_whole_environment(cluster)
    refuse_from_environment(cluster)


def refuse_other_form(key: str, value: str) -> None:
    form = FORMS[key]
    if re.fullmatch(form.pattern, value) is not None:
        return
    setting = "output" if key == "the run folder" else key
    example = f"'[\"{form.example}\"]'" if key in LISTS else form.example
    advice = f"Write {form.words}, for example {setting}={example}."
    if value.startswith("-") and re.fullmatch(r"-[0-9.]+", value):
        raise ConfigError(f"{key}={value} is below 0. {advice}")
    if value.startswith("-") or HARMLESS.fullmatch(value) is None:
        raise Unsafe(f"{key}={value!r} cannot be written into a batch script: a shell or sbatch could read more than a value in it. {advice}")
    raise ConfigError(f"{key}={value} is not a value that sbatch accepts. {advice}")


LISTS = frozenset({"cluster.gpu_types", "cluster.directives", "cluster.setup", "cluster.export", "cluster.container_mounts"})


def refuse_other_directive(directive: str) -> None:
    option, stated, value = directive.partition("=")
    if option not in FURTHER:
        raise ConfigError(
            f"cluster.directives={directive}: --{option} is not among the further options, because a key of its own states it, or because it would "
            f"change what is planned. Use one of: {', '.join(sorted(FURTHER))}."
        )
    pattern = FURTHER[option]
    if pattern is None and stated:
        raise ConfigError(f"cluster.directives={directive}: --{option} has no value. Write {option}.")
    if pattern is not None and re.fullmatch(pattern, value) is None:
        example = " Write a moment such as 20:00, 2026-12-24T08:00 or now+2hours." if pattern == MOMENT else ""
        raise ConfigError(f"cluster.directives={directive} is not a value that sbatch accepts for --{option}.{example}")


def refuse_directive_twice(directives: Sequence[str]) -> None:
    options = [directive.partition("=")[0] for directive in directives]
    twice = next((option for option in options if options.count(option) > 1), None)
    if twice is not None:
        raise ConfigError(f"cluster.directives has --{twice} more than once, and sbatch would use the last one alone. Give it once.")


def refuse_whole_environment(cluster: Slurm) -> None:
    word = next((name for name in cluster.export or [] if name.upper() in WHOLE), None)
    if word is not None:
        raise ConfigError(
            f"cluster.export={word} is no variable to sbatch, which reads {', '.join(WHOLE)} as the whole environment or none of it. "
            "Name the variables that the job gets, for example cluster.export='[\"HF_HOME\"]', or leave the key out: the job then gets all of them."
        )


def refuse_from_environment(cluster: Slurm) -> None:
    for key, text in written_values(cluster):
        if isinstance(text, FromEnvironment) and key.removeprefix("cluster.") not in READ_FROM_ENVIRONMENT:
            raise ConfigError(f"{key} cannot be read from the environment, because sbatch reads it only from its script. Write the value itself.")
