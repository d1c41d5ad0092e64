"""The train section: optimization, adapters, mixtures of parts, distillation."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from finetrail.schema.base import INTERVAL, Name, Settings, told


class Lora(Settings):
    """Low-rank adapters on the base model's linear layers (Hu et al. 2021), merged into its weights after training."""

    rank: int = Field(ge=1, description="of the two matrices that are added to each weight")
    alpha: float = Field(gt=0, description="their product is scaled by alpha / rank")
    dropout: float = Field(ge=0, lt=1, description="on what goes into the adapters")
    target_modules: list[str] | None = Field(
        min_length=1, description="names of the linear layers, such as query and value; null: all of the base model"
    )
    keep: bool = Field(
        description="export the adapters too, as PEFT loads them on the base model, in the folder adapter"
    )
    quantize: Literal["nf4"] | None = Field(
        description="nf4: keep the weights below the adapters in 4 bits while these train (QLoRA, Dettmers et al. "
        "2023), on a CUDA device with bitsandbytes; null: as they are"
    )


class SizeMix(Settings):
    """Parts in proportion to a power of their size. 1 and 0.2 is annealed sampling (Stickland and Murray 2019)."""

    kind: Literal["size"]
    power: float = Field(
        ge=0, le=1, description="of the features of each part, in the first epoch; 1: as many as it has; 0: all alike"
    )
    last_power: float = Field(ge=0, le=1, description="the same in the last epoch, in even steps between")


class WeightMix(Settings):
    """Parts in proportion to weights."""

    kind: Literal["weight"]
    weights: dict[Name, Annotated[float, Field(gt=0)]] = Field(description="name of the part -> its weight, all parts")


class MixedBatching(Settings):
    """Batches of a mixture. An epoch has as many features as train; of a part that gives more of them than it has, all
    come once before one comes again, and of one that gives fewer, the next epoch goes on with the others."""

    by: Literal["length", "random"] = Field(description="as without a section")
    mix: Annotated[SizeMix | WeightMix, Field(discriminator="kind")] = Field(
        description="what share of an epoch each part has"
    )


def _form(value: Any) -> str:
    return "section" if isinstance(value, dict | Settings) else "name"


class Train(Settings):
    """Optimization; a task may add settings of its model."""

    engine: Literal["trainer", "accelerate"] = Field(
        description="the Hugging Face Trainer, or the loop of finetrail/training/loop.py; the same results"
    )
    lr: float = Field(gt=0, description="peak learning rate of AdamW")
    epochs: float = Field(gt=0, description="passes over the train split; a fraction stops inside one")
    batch_size: int = Field(ge=1, description="features a device and step; more than fit go through in parts")
    gradient_accumulation: int = Field(ge=1, description="batches of one update, whose loss is that of one big batch")
    weight_decay: float = Field(ge=0, description="AdamW's, on all but biases and norms")
    warmup: float = Field(ge=0, lt=1, description="fraction of all updates with a rising learning rate")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(description="of the learning rate")
    max_grad_norm: float = Field(gt=0, description="gradients are scaled down to this norm")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(description="auto: bf16 where the hardware has it")
    optimizer: Literal["adamw_torch_fused", "adamw_torch"] = Field(description="fused is faster, same algorithm")
    batching: Annotated[
        Annotated[Literal["length", "random"], Tag("name")] | Annotated[MixedBatching, Tag("section")],
        Discriminator(_form),
    ] = Field(
        description="length: batches of similar length, so little padding; either: each feature once an epoch; a "
        "section where the parts of a mixture have other shares of it"
    )
    eval_batch_size: int = Field(ge=1, description="features a device and step, without gradients")
    best_metric: str = Field(min_length=1, description="validation metric that chooses the checkpoint; or loss")
    patience: int | None = Field(
        ge=1,
        description="epochs without a better best_metric before it stops; while a score is 0 "
        "those in which a loss falls do not count; null: never",
    )
    log_steps: int = Field(ge=1, description="updates between two points of the loss curve")
    layer_decay: float = Field(
        gt=0, le=1, description="a layer's learning rate as a share of the one above it (Sun et al. 2019); 1: the same"
    )
    unfreeze_layers: int | None = Field(
        ge=1, description="layers that join training at the start of each epoch, from the top (Howard and Ruder 2018); "
        "null: all train from the first"
    )  # fmt: skip
    checkpoint_every: str | None = Field(
        pattern=INTERVAL,
        description="'500 updates' or '10 minutes': at the next point of the loss curve, besides each epoch, so "
        "that a killed run goes on from there; null: at each epoch only",
    )
    gradient_checkpointing: bool = Field(
        description="compute activations anew in the backward pass: less memory, slower"
    )
    execution: Literal["auto", "eager", "graphs", "compile"] = Field(
        description="eager: kernel by kernel; graphs: as recorded CUDA graphs; compile: by torch.compile, slow to "
        "start; auto: graphs in long runs on one GPU, else eager"
    )
    speedups: bool = Field(
        description="true: faster dropout, attention and last layers where finetrail has them, and batches without "
        "padding on a GPU; false: the libraries' own code"
    )
    lora: Lora | None = Field(description="train adapters instead of the base model's weights; null: all weights")

    @property
    def micro_batch_size(self) -> int:
        """Features that go through the model at once, unless memory ends before."""
        return self.batch_size

    @model_validator(mode="after")
    def _layers_train(self) -> "Train":
        if self.lora is not None and (self.unfreeze_layers is not None or self.layer_decay < 1):
            raise ValueError(
                "lora freezes the layers, and layer_decay and unfreeze_layers say how they train; "
                "expected layer_decay 1.0 and no unfreeze_layers, or no lora"
            )
        return self


class Distillation(Settings):
    """The loss of a student: the weighted sum of that of the labels and that of its teacher's logits."""

    temperature: float = Field(
        gt=0,
        description="logits are divided by it before the softmax, the loss multiplied by its square (Hinton et al. "
        "2015); above 1 the unlikely labels count more",
    )
    labels_weight: float = Field(ge=0, description="of the loss that the labels give")
    teacher_weight: float = Field(
        gt=0, description="of the Kullback-Leibler divergence of the student's probabilities from the teacher's"
    )


ClassWeights = Annotated[
    Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None,
    told(
        "expected balanced, null, or for each label a weight above 0; a label that YAML takes for a number or a truth "
        "value, such as '0', stands in quotes"
    ),
]


class ClassifierTrain(Train):
    """Optimization of what chooses one label of several. Validation has the plain loss: comparable between settings."""

    label_smoothing: float = Field(
        ge=0, lt=1, description="share of the target that all labels get alike (Szegedy et al. 2016); train only"
    )
    class_weights: ClassWeights = Field(
        description="label -> weight of its losses, all labels; balanced: more for rare ones, 1 on average; null: all "
        "alike; train only"
    )
