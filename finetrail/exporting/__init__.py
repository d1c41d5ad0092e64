"""What an exported folder holds beside weights and tokenizer: ONNX models that agree with torch, and a model card."""
