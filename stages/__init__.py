"""The stages of dvc.yaml, one script each; they never import each other."""

import gc
import logging
import sys

from finetrail import dependencies, environment, params, stage


def begin(stage_name: str) -> None:
    """Prepare what must precede torch's import; settings are validated first, so that errors appear within a second."""
    params.validate()
    # peft imports it, and it warns of kernels that it lacks.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if stage.is_first_process():
        stage.run_alone()
        stage.check_dependencies = dependencies.watch(stage_name)
    if "numerics" in params.declared_keys(stage_name):
        declared = params.load(stage_name)
        environment.set_environment(declared.numerics, declared.threads)


# `python -m stages.NAME` imports this package before the stage. Only then is argv[0] "-m".
if sys.argv[0] == "-m":
    module = next(word.partition("stages.")[2] for word in reversed(sys.orig_argv) if "stages." in word)
    stage.run(lambda: begin(module.replace("download_", "download@")))
    # Imports create a million objects that are never freed; scanning them repeatedly would take a second or two.
    gc.disable()
