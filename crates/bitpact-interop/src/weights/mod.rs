//! Named tensors of PyTorch and safetensors files.
