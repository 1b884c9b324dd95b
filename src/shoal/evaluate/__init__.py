"""A model file and a data file in, scores and metrics out.  onnxruntime is loaded only when a model is run."""
