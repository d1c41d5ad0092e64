"""The export section."""

from pydantic import Field

from finetrail.schema.base import OWNED_HUB_ID, Settings


class Export(Settings):
    """What to export in addition to safetensors, tokenizer, model card and onnx/model.onnx."""

    int8: bool = Field(
        description="also write onnx/model_quantized.onnx (int8), if its scores stay within max_metric_drop"
    )
    max_metric_drop: float = Field(
        ge=0, description="maximum absolute drop of the headline metric on test, int8 against torch"
    )
    hub_repo: str | None = Field(pattern=OWNED_HUB_ID, description="repository to push to, OWNER/NAME; null: no push")
    hub_private: bool = Field(description="whether a repository created by the push is private")
