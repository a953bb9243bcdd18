//! ONNX files as networks: what operators become, what is put together, what is refused.

#[path = "../common/build.rs"]
mod build;
#[path = "../common/forward.rs"]
mod forward;

mod damage;
mod networks;
mod places;
