//! bitpact-kernels
