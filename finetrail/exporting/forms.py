"""The ONNX files of an exported folder by runtime, with the names that optimum and transformers.js expect."""

# In a browser, transformers.js loads the file with the suffix _quantized by default.
ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx_int8": "onnx/model_quantized.onnx"}
