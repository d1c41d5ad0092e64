"""Fine-tune transformers as a DVC pipeline, from a corpus to an exported model."""
