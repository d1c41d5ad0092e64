"""The stages of dvc.yaml, one script each; they never import each other."""

import gc
import sys

from finetrail import params, stage

# `python -m stages.NAME` imports this package before the stage: a typing error is told before torch is imported, and
# before an hour of training. Only then is argv[0] "-m".
if sys.argv[0] == "-m":
    stage.run(params.validate)
    stage.run(stage.run_alone)
    # Imports make a million objects that stay: to look through them again and again would take a second or two.
    gc.disable()
