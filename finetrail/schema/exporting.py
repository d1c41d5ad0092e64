"""The export section."""

from pydantic import Field

from finetrail.schema.base import OWNED_HUB_ID, Settings


class Export(Settings):
    """What the exported folder holds beside safetensors, tokenizer, model card and onnx/model.onnx."""

    int8: bool = Field(description="also write onnx/model_quantized.onnx (int8), if it stays within max_metric_drop")
    max_metric_drop: float = Field(ge=0, description="of the headline test metric, absolute, int8 against torch")
    hub_repo: str | None = Field(pattern=OWNED_HUB_ID, description="OWNER/NAME to push to; null: no push")
    hub_private: bool = Field(description="whether a repository that the push creates is private")
