//! Graphs, tensors and bits of ONNX files.
