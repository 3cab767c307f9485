"""From PyTorch to an ONNX artifact, proven equal; `artifact` and `session` run without torch."""
