"""params.yaml: what to run, and the overrides of sweeps."""

from typing import Literal

from pydantic import Field

from finetrail.schema.base import LAUNCHER, Name, Settings


class Params(Settings):
    """params.yaml: what to run, and the overrides of sweeps (null means the recipe's value)."""

    task: Name = Field(description="folder of finetrail/tasks and of recipes")
    recipe: Name = Field(description="recipes/TASK/RECIPE.yaml, without the ending")
    seed: int = Field(ge=0, lt=2**32, description="initial weights, dropout, order of batches")
    launcher: str = Field(
        pattern=LAUNCHER,
        description="what starts the train stage: python, accelerate launch, torchrun. A shell runs it: whoever may "
        "write params.yaml may run any program",
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] | None = Field(
        description="where train sends its curves, beside metrics/train; null: nowhere. Switching it reruns no stage"
    )
    threads: int | None = Field(
        ge=1,
        le=1024,
        description="CPU threads of train, evaluate and export; null: as many as the libraries choose. With portable "
        "numerics they only share the work: no byte depends on them",
    )
    lr: float | None = Field(gt=0, description="replaces train.lr")
    epochs: float | None = Field(gt=0, description="replaces train.epochs")
    batch_size: int | None = Field(ge=1, description="replaces train.batch_size")
    limit: int | None = Field(ge=1, description="replaces tokenize.limit: at most so many examples of each split")
