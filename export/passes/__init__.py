"""Graph → graph: what a precision or a provider changes, on ONNX rather than on the model."""
