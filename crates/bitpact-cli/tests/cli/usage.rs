//! Command lines and recipes that cannot be used: exit status 2, the reason on stderr, nothing written.

use super::*;

#[test]
fn what_was_typed_wrongly_is_told_and_nothing_is_made() {
    let place = Place::new();
    std::fs::write(place.path("typo.toml"), "dataset = \"builtin\"\narch = \"cnn\"\nepoch = 3\n").unwrap();
    std::fs::write(place.path("torn.toml"), "dataset = \"builtin\narch = 1\n").unwrap();
    for (line, parts) in [
        ("", &["Usage: bitpact"][..]),
        ("trian", &["unrecognized subcommand", "train"]),
        ("train --learning-rate 1", &["unexpected argument", "--learning-rate"]),
        ("train --epochs many", &["invalid value 'many'", "--epochs"]),
        ("train --epochs 0", &["--epochs: `epochs` = 0: expected a whole number"]),
        ("train --epochs -3", &["--epochs: `epochs` = -3"]),
        ("train --bits W9A4", &["--bits: `bits` = `W9A4`: 9 bits for weights, expected 1 to 8"]),
        ("train --bits W0A4", &["0 bits for weights"]),
        ("train --bits four", &["expected `float` or a form like `W4A4`"]),
        ("train --lr -0.1", &["--lr: `lr` = -0.1: expected a number above 0"]),
        ("train --lr nan", &["--lr: `lr` = NaN"]),
        ("train --batch-size 0", &["--batch-size: `batch_size` = 0"]),
        ("train --momentum 1", &["--momentum: `momentum` = 1"]),
        ("train --weight-decay -1", &["--weight-decay: `weight_decay` = -1"]),
        ("train --seed -1", &["--seed: `seed` = -1"]),
        ("train --limit-train 0", &["--limit-train: `limit_train` = 0"]),
        ("train --limit-test -2", &["--limit-test: `limit_test` = -2"]),
        ("train --act-quant pakt", &["--act-quant", "did you mean `pact`?"]),
        ("train --weight-quant dorfea", &["--weight-quant", "did you mean `dorefa`?"]),
        ("train --first-last 8-bits", &["--first-last", "did you mean `8bit`?"]),
        ("train --clip-init high", &["--clip-init", "\"calibrate\""]),
        ("train --clip-init 0", &["--clip-init", "expected a number from 0.01"]),
        ("train --optimizer adan", &["--optimizer", "did you mean `adam`?"]),
        ("train --betas 0.9", &["--betas: `betas` = [0.9]: expected two numbers"]),
        ("train --eps 0", &["--eps: `eps` = 0"]),
        ("train --max-grad-norm -1", &["--max-grad-norm: `max_grad_norm` = -1"]),
        ("train --param-group x", &["--param-group: `param_groups` = \"x\": expected a form like"]),
        ("train --param-group x.*:lr=1", &["`param_groups`.\"x.*\": no trained tensor has a name like this"]),
        ("train --label-smoothing 1", &["--label-smoothing: `label_smoothing` = 1"]),
        ("train --bits W8A8@3", &["--bits: `bits` = `W8A8@3`: the last bits stay to the end of the run"]),
        ("train --bits W8A8@30,W4A4", &["--bits: `bits` = W8A8@30,W4A4: expected epochs below"]),
        ("train --cutout -1", &["--cutout: `cutout` = -1"]),
        ("train --mixup 5", &["--mixup: `mixup` = 5: expected a number from 0 to 4"]),
        ("train --distill-temperature 0", &["--distill-temperature: `distill_temperature` = 0"]),
        ("train --distill-weight 2", &["--distill-weight: `distill_weight` = 2"]),
        ("train --ema-decay 2", &["--ema-decay: `ema_decay` = 2"]),
        ("train --bn-reestimate -1", &["--bn-reestimate: `bn_reestimate` = -1"]),
        ("train --schedule linear", &["--schedule", "\"constant\", \"step\", \"cosine\""]),
        ("train --arch resnet19", &["--arch", "did you mean `resnet", "\"resnet56-b\""]),
        ("train --arch none.json", &["--arch", "expected a TOML or JSON file"]),
        ("train --dataset cifar", &["--dataset", "did you mean `cifar10`?"]),
        ("train --dataset cifar10", &["cifar10", "--data"]),
        ("train --data .", &["builtin", "--data"]),
        ("train cifar10-resnet", &["`cifar10-resnet` is neither", "did you mean `cifar10-resnet20`?"]),
        ("train typo.toml", &["typo.toml, line 3: unknown key `epoch` (did you mean `epochs`?)"]),
        ("train torn.toml", &["torn.toml, line 1: "]),
        ("train none/recipe.toml", &["neither a built-in recipe nor a file"]),
        ("train --isa sse2", &["--isa", "expected auto, amx, avx512, avxvnni, avx2 or scalar"]),
        ("train --threads 0", &["--threads"]),
        ("train builtin --resume runs/x", &["cannot be used with"]),
        ("train --resume x --output y", &["cannot be used with"]),
        ("train --resume x --init-from y", &["cannot be used with"]),
        ("train --batch-size 71 --limit-train 70", &["a batch of 71 images is larger than the training set of 70"]),
        ("train --first-last same --weight-quant sawb --bits W9A9", &["`W9A9`"]),
        ("eval", &["required arguments", "<MODEL>"]),
        ("eval x --limit-test 0", &["--limit-test"]),
        ("eval x --batch-size 0", &["--batch-size"]),
        ("convert x", &["--output <FILE>"]),
    ] {
        place.run(line).failed(2, parts);
    }
    assert!(!place.path("runs").exists(), "nothing was trained");
}

#[test]
fn help_shows_examples_and_every_flag() {
    let place = Place::new();
    let help = place.run("train --help").ok().stdout;
    for flag in "data dataset arch bits act-quant weight-quant first-last clip-init epochs batch-size lr momentum \
                 weight-decay optimizer betas eps max-grad-norm param-group label-smoothing cutout mixup teacher distill-temperature distill-weight ema-decay bn-reestimate \
                 schedule seed threads isa limit-train limit-test init-from resume output json"
        .split_whitespace()
    {
        assert!(help.contains(&format!("--{flag}")), "--{flag}");
    }
    assert!(help.contains("Examples:") && help.contains("cifar10-resnet20"), "{help}");
    let commands = [
        "eval",
        "convert",
        "import",
        "export",
        "inspect",
        "run",
        "verify",
        "bench",
        "kernels",
        "data",
        "data check",
        "data fetch",
        "reproduce",
    ];
    for command in commands {
        assert!(place.run(&format!("{command} --help")).ok().stdout.contains("Examples:"), "{command}");
    }
    assert!(place.run("--version").ok().stdout.starts_with("bitpact "));
}

#[test]
fn completions_and_pages_of_the_manual_name_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = place.run(&format!("completions {shell}")).ok().stdout;
        assert!(["train", "verify", "completions"].iter().all(|name| text.contains(name)), "{shell}");
    }
    let page = place.run("man").ok().stdout;
    assert!(page.contains(".TH bitpact") && page.contains("Exit status"), "{page}");
    let page = place.run("man lm quantize").ok().stdout;
    assert!(page.contains("bitpact\\-lm\\-quantize") && page.contains("\\-\\-method"), "{page}");
    place.run("man lm quantise").failed(2, &["`bitpact-lm` has no command `quantise`"]);
    place.run("completions tcsh").failed(2, &["tcsh"]);
}
