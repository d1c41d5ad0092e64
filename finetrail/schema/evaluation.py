"""The evaluate section."""

from pydantic import Field

from finetrail.schema.base import Fraction, Settings


class Bootstrap(Settings):
    """Percentile bootstrap intervals over the examples (Efron 1979; Koehn 2004 for NLP)."""

    samples: int = Field(ge=100, description="number of resamplings with replacement")
    confidence: Fraction = Field(
        description="confidence level of the intervals; 0.95: from the 2.5th to the 97.5th percentile"
    )
    seed: int = Field(
        ge=0, description="random seed of the resampling; separate from seed in params.yaml, so that all seeds share it"
    )


class Evaluate(Settings):
    """Settings of evaluation on validation and test that all tasks have."""

    batch_size: int = Field(ge=1, description="features per step")
    bootstrap: Bootstrap
    worst_errors: int = Field(ge=0, description="number of errors in the report, the most confident ones first")
