"""The train section: optimization, adapters, mixtures of parts, distillation."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from finetrail.schema.base import INTERVAL, Name, Settings, one_message


class Lora(Settings):
    """Low-rank adapters on linear layers of the base model (Hu et al. 2021), merged into its weights after training."""

    rank: int = Field(ge=1, description="rank of the two matrices whose product is added to each weight")
    alpha: float = Field(gt=0, description="the product is scaled by alpha / rank")
    dropout: float = Field(ge=0, lt=1, description="dropout on the input of the adapters")
    target_modules: list[str] | None = Field(
        min_length=1,
        description="names of the linear layers, such as query and value; null: all linear layers of the base model",
    )
    keep: bool = Field(
        description="also export the adapters, in the folder adapter, as PEFT loads them on the base model"
    )
    quantize: Literal["nf4"] | None = Field(
        description="nf4: train the adapters on weights in 4 bits (QLoRA, Dettmers et al. 2023); it needs a CUDA "
        "device and bitsandbytes; null: weights as they are"
    )


class SizeMix(Settings):
    """Parts in proportion to a power of their sizes. From 1 to 0.2 is annealed sampling (Stickland and Murray 2019)."""

    kind: Literal["size"]
    power: float = Field(
        ge=0,
        le=1,
        description="exponent of the parts' numbers of features in the first epoch; 1: as many as each has; 0: equally "
        "many",
    )
    last_power: float = Field(ge=0, le=1, description="exponent in the last epoch, with equal steps in between")


class WeightMix(Settings):
    """Parts in proportion to weights."""

    kind: Literal["weight"]
    weights: dict[Name, Annotated[float, Field(gt=0)]] = Field(description="part -> weight, for all parts")


class MixedBatching(Settings):
    """Batches of a mixture. An epoch has as many features as train. A part that gives more features than it has uses
    each one before it repeats any. A part that gives fewer continues with its other features in the next epoch."""

    by: Literal["length", "random"] = Field(description="how batches are formed, as without a section")
    mix: Annotated[SizeMix | WeightMix, Field(discriminator="kind")] = Field(
        description="share of each part in an epoch"
    )


def _form(value: Any) -> str:
    return "section" if isinstance(value, dict | Settings) else "name"


class Train(Settings):
    """Settings of training that all tasks have."""

    engine: Literal["trainer", "accelerate"] = Field(
        description="trainer: the Hugging Face Trainer; accelerate: the loop of finetrail/training/loop.py; the "
        "results are the same"
    )
    lr: float = Field(gt=0, description="peak learning rate of AdamW")
    epochs: float = Field(gt=0, description="passes over the train split; a fraction stops within a pass")
    batch_size: int = Field(
        ge=1, description="features per device and step; if they do not fit into memory, they are processed in parts"
    )
    gradient_accumulation: int = Field(
        ge=1, description="batches per update; the loss is that of one batch of all their features"
    )
    weight_decay: float = Field(ge=0, description="weight decay of AdamW, on all parameters but biases and norms")
    warmup: float = Field(
        ge=0, lt=1, description="fraction of the updates in which the learning rate rises from 0 to lr"
    )
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        description="schedule of the learning rate after the warmup"
    )
    max_grad_norm: float = Field(gt=0, description="maximum norm of the gradients, which are scaled down to it")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        description="precision of the forward and backward pass; auto: bf16 if the hardware supports it, else fp32"
    )
    optimizer: Literal["adamw_torch_fused", "adamw_torch"] = Field(
        description="implementation of AdamW: the fused one is faster, the algorithm is the same"
    )
    batching: Annotated[
        Annotated[Literal["length", "random"], Tag("name")] | Annotated[MixedBatching, Tag("section")],
        Discriminator(_form),
    ] = Field(
        description="how batches are formed. length: of features of similar length, for little padding; random: at "
        "random. In both, each feature occurs once per epoch. For a mixture, a section can set the shares of its parts"
    )
    eval_batch_size: int = Field(ge=1, description="features per device and step in validation")
    best_metric: str = Field(min_length=1, description="validation metric that selects the best checkpoint, or loss")
    patience: int | None = Field(
        ge=1,
        description="number of epochs without an improvement of best_metric after which training stops; while the "
        "score is 0, epochs in which the loss falls do not count; null: no early stopping",
    )
    log_steps: int = Field(ge=1, description="updates between two points of the loss curve")
    layer_decay: float = Field(
        gt=0,
        le=1,
        description="ratio of a layer's learning rate to that of the layer above it (Sun et al. 2019); 1: all the same",
    )
    unfreeze_layers: int | None = Field(
        ge=1,
        description="number of layers, from the top, that are unfrozen at the start of each epoch (Howard and Ruder "
        "2018); null: all layers train from the start",
    )
    checkpoint_every: str | None = Field(
        pattern=INTERVAL,
        description="interval of checkpoints from which a killed run resumes, such as '500 updates' or '10 minutes', "
        "in addition to those after each epoch; they are written at points of the loss curve; null: after each epoch "
        "only",
    )
    gradient_checkpointing: bool = Field(
        description="recompute activations in the backward pass: less memory, but slower"
    )
    execution: Literal["auto", "eager", "graphs", "compile"] = Field(
        description="how passes are executed. eager: kernel by kernel; graphs: recorded as CUDA graphs; compile: by "
        "torch.compile, which starts slowly; auto: graphs in long runs on one GPU, else eager"
    )
    lora: Lora | None = Field(
        description="train adapters instead of the weights of the base model; null: train all weights"
    )
    speedups: bool = Field(
        description="true: faster dropout, attention and last layers where finetrail has them, and batches without "
        "padding on a GPU; false: the libraries' own code"
    )

    @property
    def micro_batch_size(self) -> int:
        """Features that go through the model at once, unless memory ends before."""
        return self.batch_size

    @model_validator(mode="after")
    def _layers_train(self) -> "Train":
        if self.lora is not None and (self.unfreeze_layers is not None or self.layer_decay < 1):
            raise ValueError(
                "lora freezes the layers that layer_decay and unfreeze_layers train; "
                "expected layer_decay 1.0 and no unfreeze_layers, or no lora"
            )
        return self


class Distillation(Settings):
    """Loss of a student: the weighted sum of the loss on the labels and the divergence from the teacher."""

    temperature: float = Field(
        gt=0,
        description="divisor of the logits before the softmax; the divergence is multiplied by its square (Hinton et "
        "al. 2015). Above 1, unlikely labels count more",
    )
    labels_weight: float = Field(ge=0, description="weight of the loss on the labels")
    teacher_weight: float = Field(
        gt=0, description="weight of the Kullback-Leibler divergence of the student's probabilities from the teacher's"
    )


ClassWeights = Annotated[
    Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None,
    one_message(
        "expected balanced, null, or a weight above 0 for each label; quote labels that YAML reads as a number or a "
        "boolean, such as '0'"
    ),
]


class ClassifierTrain(Train):
    """Training of models that choose one of several labels. The validation loss is the plain one, for comparison."""

    label_smoothing: float = Field(
        ge=0,
        lt=1,
        description="share of the target that is spread over all labels (Szegedy et al. 2016); in training only",
    )
    class_weights: ClassWeights = Field(
        description="label -> weight of its losses, for all labels; balanced: larger for rare labels, 1 on average; "
        "null: no weights; in training only"
    )
