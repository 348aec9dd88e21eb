"""`python -m trainers.tracing FOLDER`: records the step that FOLDER/request.json describes on fake tensors, into FOLDER/traces.json.

For architectures that the launcher has no table of. The keys of an answer are the fields of the launcher's Trace and TracedMoment
(launcher/facts/model/trace.py); `refused` stands instead of them where an architecture cannot be traced, with the reason.
"""

import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from conf.traces import REQUEST, TRACES, Adapter, TraceSettings
from trainers.tracing.assembled import traced
from trainers.tracing.model import depth_of

LONGEST = 300  # characters of a cause


def main() -> int:
    folder = Path(sys.argv[1])
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    (folder / TRACES).write_text(json.dumps(answer(request["architecture"], settings_of(request["settings"]))), encoding="utf-8")
    return 0


def settings_of(values: dict[str, Any]) -> TraceSettings:
    adapter = values["adapter"]
    return TraceSettings(**{**values, "adapter": adapter and Adapter(**{**adapter, "targets": tuple(adapter["targets"])})})


def answer(architecture: dict[str, Any], settings: TraceSettings) -> dict[str, Any]:
    warnings.simplefilter("ignore")  # of what transformers will rename
    try:
        config = AutoConfig.for_model(**architecture)
        return asdict(traced(config, depth_of(config), settings))
    except Exception as error:  # noqa: BLE001  # any operation of any model may refuse fake tensors; the launcher says why it falls back
        return {"refused": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:LONGEST]}


if __name__ == "__main__":
    raise SystemExit(main())
