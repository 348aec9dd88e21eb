"""`python -m trainers.verbs.prepare FOLDER`: tokenise the data of the run that FOLDER describes into the cache, outside of the GPU job."""

import sys

from conf.request import Prepare, load_prepare
from conf.run_dir import load_composed
from conf.schema import Composed
from trainers.data.prepare.folder import load_prepared, prepare_cache
from trainers.model.tokenizer import load_tokenizer
from trainers.verbs.frame import perform


def prepare(run: Composed, request: Prepare) -> None:
    folder = prepare_cache(run, load_tokenizer(run))
    data = load_prepared(folder)
    print(f"{data.report.sentence()}\ncached: {folder}", flush=True)


if __name__ == "__main__":
    sys.exit(perform(load_prepare, prepare, load=load_composed))
