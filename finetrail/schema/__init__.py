"""The schema of params.yaml and of the recipe sections that all tasks share: strict, frozen, every field required.

One module for each section; others write `schema.Train` and need not know which one.
"""

# ruff: noqa: F401, F403

from finetrail.schema.base import *
from finetrail.schema.corpus import *
from finetrail.schema.evaluation import *
from finetrail.schema.exporting import *
from finetrail.schema.model import *
from finetrail.schema.params import *
from finetrail.schema.readers import *
from finetrail.schema.recipe import *
from finetrail.schema.sources import *
from finetrail.schema.tokenization import *
from finetrail.schema.training import *
