"""Computes what a student learns from its teacher, if the recipe has one: data/taught.

These are the teacher's logits of the train split, once for all epochs. If each epoch draws its inputs anew, it is the
teacher itself.
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetrail import layout, params, stage


def main() -> None:
    """Write the logits of the train split's features, in their order; without a teacher, a table without columns."""
    declared = params.load("teach")
    teacher = getattr(declared.model, "teacher", None)
    with stage.outputs(layout.TAUGHT) as [folder]:
        folder.mkdir()
        logits = pa.table({}) if teacher is None else lesson(declared, teacher.batch_size, folder)
        path = str(folder / layout.TAUGHT_LOGITS.name)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, logits.schema) as writer:
            writer.write_table(logits)
    if teacher is None:
        stage.log("teach: no teacher in the recipe: the model learns from the labels alone")


def lesson(declared: params.StageParams, batch_size: int, folder: Path) -> pa.Table:
    """Check the teacher, and return its logits; or copy it into the folder, for use while the student trains."""
    # These take seconds to import, and most recipes have no teacher.
    from transformers import AutoTokenizer

    from finetrail import numerics, tasks
    from finetrail.evaluation import inference
    from finetrail.model import distillation

    numerics.use(declared.numerics, declared.threads)
    numerics.use_tf32(declared.numerics)
    teaching, target = tasks.module(declared.task, "modeling").TEACHING, stage.read_json(layout.TARGET)
    assert teaching is not None  # or the recipe could have no teacher
    weights, tokenizer = layout.TEACHER / "weights", AutoTokenizer.from_pretrained(layout.USED_TOKENIZER)
    distillation.check_tokens(AutoTokenizer.from_pretrained(layout.TEACHER / "tokenizer"), tokenizer)
    model = teaching.load_teacher(weights, target)
    with pa.memory_map(str(layout.features_file("train"))) as file:
        features = pa.ipc.open_stream(file).read_all()
    distillation.check_lengths(model.config, features)
    if teaching.taught is None:
        shutil.copytree(weights, folder / layout.TAUGHT_BY.name)
        stage.log(f"teach: {model.num_parameters():,} parameters, used in training: each epoch has other inputs")
        return pa.table({})
    forward = inference.torch_forward(model.to(inference.device()))  # type: ignore[arg-type]  # of _Wrapped
    rows: dict[int, Any] = {}
    for numbers, outputs in inference.forward_batches(features, forward, tokenizer.pad_token_id, batch_size):
        rows |= zip(numbers.tolist(), teaching.taught(outputs, features.take(numbers)), strict=True)
    stage.log(f"teach: {model.num_parameters():,} parameters, logits of {len(rows):,} features of train")
    return pa.table({distillation.TAUGHT: distillation.column([rows[row] for row in range(len(features))])})


if __name__ == "__main__":
    stage.run(main)
