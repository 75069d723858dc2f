"""A model written for a runtime: compressed-tensors, ONNX, GGUF."""
