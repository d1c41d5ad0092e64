"""The recipe's base model -> data/model: verified weights as safetensors, its tokenizer, and where they came from."""

from finetrail import layout
from finetrail.model.base import copy_verified
from finetrail.params import load
from finetrail.sources import fetch, moving
from finetrail.stage import log, outputs, run, write_json


def main() -> None:
    """Fetch the base model, verify it and write it with its provenance."""
    model = load("download@model").model
    fetched = fetch(model.source, "model", layout.SCRATCH)
    provenance = {"name": model.name, **fetched.provenance}
    provenance["license"] = model.license or provenance["license"]
    with outputs(layout.MODEL) as [folder]:
        copy_verified(fetched, folder)
        write_json(folder / layout.MODEL_PROVENANCE.name, provenance)
    if hint := moving(fetched):
        log(f"download@model: {hint}")
    size = "new: train draws its weights" if model.source.kind == "new" else f"{provenance['bytes'] / 1e6:.0f} MB"
    log(f"download@model: {model.name}, {size}, sha256 {provenance['sha256'][:8]}…")


if __name__ == "__main__":
    run(main)
