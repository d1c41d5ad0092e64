"""The ONNX files of an exported folder by their runtime, with the names that optimum and transformers.js look for."""

# transformers.js adds _quantized in a browser unless it is told otherwise.
ONNX_FILES = {"onnx": "onnx/model.onnx", "onnx_int8": "onnx/model_quantized.onnx"}
