//! The recipes that are part of the program.

/// Names of the built-in recipes, the default first.
pub const BUILTIN_NAMES: [&str; 3] = ["builtin", "cifar10-resnet20", "cifar10-resnet20-torch"];

/// The TOML text of the built-in recipe `name`.
pub fn builtin_text(name: &str) -> Option<&'static str> {
    match name {
        "builtin" => Some(include_str!("../../recipes/builtin.toml")),
        "cifar10-resnet20" => Some(include_str!("../../recipes/cifar10-resnet20.toml")),
        "cifar10-resnet20-torch" => Some(include_str!("../../recipes/cifar10-resnet20-torch.toml")),
        _ => None,
    }
}

/// The built-in recipe made for the data set `dataset`.
pub fn builtin_for_dataset(dataset: &str) -> Option<&'static str> {
    match dataset {
        "builtin" => Some("builtin"),
        "cifar10" => Some("cifar10-resnet20"),
        _ => None,
    }
}
