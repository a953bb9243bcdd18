//! bitpact-engine
