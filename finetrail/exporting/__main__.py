"""Measures the latency of one input for each exported form (torch, ONNX, int8), and writes a page with it.

python -m finetrail.exporting
"""

from typing import Any

import torch
from transformers import AutoTokenizer

from finetrail import layout, numerics, params, stage, tasks
from finetrail.evaluation import inference, splits
from finetrail.exporting import latency
from finetrail.exporting.sizes import mib
from finetrail.inference import ONNX_FILES
from finetrail.reporting import page
from finetrail.reporting.records import read_results

WEIGHTS = "*.safetensors"


def main() -> None:
    """Measure, log and write; times differ from run to run, so they are not outputs of a stage."""
    declared = params.load("export")
    results = read_results(declared.task)
    timings = measured(declared.task, declared.threads)
    for name, form in timings["forms"].items():
        stage.log(f"{name}: {form['ms']:.2f} ms an input (90% below {form['ms_90']:.2f}), {form['mib']:.1f} MiB")
    inputs = f"{timings['inputs']} inputs of {timings['tokens']} tokens in the median, one by one"
    stage.log(f"{inputs}; {timings['cpu']}, threads: {timings['threads']}")
    with stage.outputs(layout.EXPORT_TIMINGS, layout.TIMED_REPORT) as [file, html]:
        stage.write_json(file, timings)
        html.write_text(page.render(declared.task, declared.recipe, results, timings), encoding="utf-8")
    stage.log(f"page: {layout.TIMED_REPORT}")


def measured(task: str, threads: int | None) -> dict[str, Any]:
    """Return the times of the exported model's forms on the CPU: the median and the 90th percentile, in ms."""
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(layout.EXPORTED)
    inputs = latency.inputs(splits.load("test").features, tokenizer.pad_token_id or 0)
    model = tasks.module(task, "loading").load_model(layout.EXPORTED)
    times = latency.measure(inference.torch_forward(model), inputs)
    forms = {"torch": times | {"mib": mib(layout.EXPORTED, WEIGHTS)}}
    for name, file in ONNX_FILES.items():
        path = layout.EXPORTED / file
        if path.is_file():
            times = latency.measure(inference.onnx_forward(path, threads), inputs)
            forms[name] = times | {"mib": mib(path.parent, f"{path.name}*")}
    record = {"cpu": numerics.record("fast")["cpu"], "threads": threads, "inputs": len(inputs)}
    return record | {"tokens": latency.tokens(inputs), "forms": forms}


if __name__ == "__main__":
    stage.run(main)
