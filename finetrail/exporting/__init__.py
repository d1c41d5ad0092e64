"""Writes what an exported folder has besides weights and tokenizer: ONNX models equal to torch's, and a model card."""
