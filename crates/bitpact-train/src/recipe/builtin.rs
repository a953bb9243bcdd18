//! The recipes that are part of the program.

macro_rules! builtins {
    ($($name:literal),+ $(,)?) => {
        /// Names of the built-in recipes, the default first.
        pub const BUILTIN_NAMES: [&str; [$($name),+].len()] = [$($name),+];

        /// The TOML text of the built-in recipe `name`.
        pub fn builtin_text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../../recipes/", $name, ".toml"))),)+
                _ => None,
            }
        }
    };
}

builtins!(
    "builtin",
    "builtin-upscale",
    "builtin-segments",
    "builtin-signals",
    "cifar10-resnet20",
    "cifar10-resnet20-torch",
    "cifar100-resnet20",
    "mnist-cnn",
    "fashion-mnist-cnn",
    "kmnist-cnn",
    "emnist-cnn",
    "svhn-resnet20",
    "folder",
    "arrays",
    "ppg-bp",
);

/// The built-in recipe made for the data set `dataset`.
pub fn builtin_for_dataset(dataset: &str) -> Option<&'static str> {
    match dataset {
        "builtin" => Some("builtin"),
        "builtin-upscale" => Some("builtin-upscale"),
        "builtin-segments" => Some("builtin-segments"),
        "builtin-signals" => Some("builtin-signals"),
        "cifar10" => Some("cifar10-resnet20"),
        "cifar100" => Some("cifar100-resnet20"),
        "mnist" => Some("mnist-cnn"),
        "fashion-mnist" => Some("fashion-mnist-cnn"),
        "kmnist" => Some("kmnist-cnn"),
        "emnist-digits" | "emnist-letters" | "emnist-balanced" => Some("emnist-cnn"),
        "ppg-bp" => Some("ppg-bp"),
        "svhn" => Some("svhn-resnet20"),
        "folder" => Some("folder"),
        _ => None,
    }
}
