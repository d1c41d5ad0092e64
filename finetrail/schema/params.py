"""params.yaml: which recipe to run, and the values that sweeps override."""

from typing import Literal

from pydantic import Field

from finetrail.schema.base import LAUNCHER, Name, Settings


class Params(Settings):
    """params.yaml: which recipe to run, and overrides of its values for sweeps (null: the value in the recipe)."""

    task: Name = Field(description="task to run: the name of a folder in finetrail/tasks and in recipes")
    recipe: Name = Field(description="recipe to run: the name of a file in recipes/TASK, without .yaml")
    seed: int = Field(
        ge=0, lt=2**32, description="random seed of training: initial weights, dropout, order of the batches"
    )
    launcher: str = Field(
        pattern=LAUNCHER,
        description="command that starts the train stage: python, accelerate launch ..., or torchrun .... It is run by "
        "a shell, so anyone who can write params.yaml can run any program",
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] | None = Field(
        description="experiment trackers that train logs its curves to, in addition to metrics/train; null: none. "
        "Changing this value reruns no stage"
    )
    threads: int | None = Field(
        ge=1,
        le=1024,
        description="number of CPU threads of train, evaluate and export; null: the default of the libraries. With "
        "portable numerics the results do not depend on it",
    )
    lr: float | None = Field(gt=0, description="overrides train.lr")
    epochs: float | None = Field(gt=0, description="overrides train.epochs")
    batch_size: int | None = Field(ge=1, description="overrides train.batch_size")
    limit: int | None = Field(ge=1, description="overrides tokenize.limit: maximum number of examples per split")
