"""ONNX file <-> named tensors.  A file comes in; out go names, dtypes, shapes, places of bytes, and a new file."""
