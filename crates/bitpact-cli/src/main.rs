//! The `bitpact` command: arguments to validated plans, plans to library calls, results to people and scripts.

mod commands;
mod exit;
mod interrupt;
mod loaded;
mod machine;
mod out;
mod own;
mod progress;
#[cfg(feature = "tui")]
mod tui;
#[cfg(not(feature = "tui"))]
#[path = "no_tui.rs"]
mod tui;

use std::process::ExitCode;

#[cfg(any(feature = "manual", test))]
use clap::CommandFactory;
use clap::{Parser, Subcommand};

/// Trains neural networks at 1 to 8 bits with PACT, turns them into integer networks, and runs exactly those integers.
#[derive(Parser)]
#[command(
    name = "bitpact",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  bitpact train                                           the built-in set at W4A4, about a minute
  bitpact train --dataset cifar10 --data DIR --bits W2A2  ResNet-20 on CIFAR-10
  bitpact train --resume runs/builtin-W4A4-seed1          go on where a run stopped
  bitpact eval runs/builtin-W4A4-seed1                    accuracy of the integers
  bitpact import resnet20.th -o model.safetensors         a network that PyTorch trained
  bitpact ptq model.safetensors --data DIR --bits W8A8    a float network to integers, without training
  bitpact export runs/builtin-W4A4-seed1 -o model.onnx    the network for ONNX Runtime and others
  bitpact inspect runs/builtin-W4A4-seed1/model.bitpact   what is in the file
  bitpact watch runs/builtin-W4A4-seed1                   the run live
  bitpact report runs/builtin-W4A4-seed1                  one HTML page about the run
  bitpact sensitivity runs/builtin-W4A4-seed1             which layer suffers most from few bits
  bitpact search bits runs/builtin-W4A4-seed1 --budget bytes=25k  the bits of every layer under a budget
  bitpact sweep builtin --bits 2,3,4,5,8 --seeds 3        a recipe at several widths, side by side
  bitpact run runs/builtin-W4A4-seed1 photo.png           the classes of a picture
  bitpact bench resnet18 --bits W4A4                      speed with random weights
  bitpact verify runs/builtin-W4A4-seed1                  every path gives the same integers
  bitpact data fetch fashion-mnist                        an image set into data/
  bitpact data check photos                               what a folder of your own would be read as
  bitpact reproduce list                                  the paper's results and ours, a recipe each
  bitpact accel paper                                     what low bits buy in hardware
  bitpact lm quantize DIR --method awq -o net.safetensors  a language model at 4 bits

Exit status: 0 done, 1 failed, 2 the command line or recipe cannot be used, 130 stopped by Ctrl-C,
143 by SIGTERM, 129 by SIGHUP."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<commands::train::Args>),
    Eval(commands::eval::Args),
    Convert(commands::convert::Args),
    Import(Box<commands::import::Args>),
    Ptq(Box<commands::ptq::Args>),
    Export(commands::export::Args),
    Inspect(commands::inspect::Args),
    Run(commands::run::Args),
    Bench(Box<commands::bench::Args>),
    Verify(commands::verify::Args),
    Kernels(commands::kernels::Args),
    #[cfg(feature = "tui")]
    Watch(commands::watch::Args),
    Data(commands::data::Args),
    Accel(commands::accel::Args),
    Lm(commands::lm::Args),
    Report(commands::report::Args),
    Sensitivity(commands::sensitivity::Args),
    Search(commands::search::Args),
    Sweep(commands::sweep::Args),
    Reproduce(commands::reproduce::Args),
    #[cfg(feature = "manual")]
    Completions(commands::completions::Args),
    #[cfg(feature = "manual")]
    Man(commands::man::Args),
}

fn main() -> ExitCode {
    bitpact::unstable::kernels::memory::never_keep_large_buffers();
    let command = Cli::parse().command;
    if let Err(error) = interrupt::install() {
        return exit::report(&error);
    }
    let result = match command {
        Command::Train(args) => commands::train::run(*args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Import(args) => commands::import::run(*args),
        Command::Ptq(args) => commands::ptq::run(*args),
        Command::Export(args) => commands::export::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Bench(args) => commands::bench::run(*args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Kernels(args) => commands::kernels::run(args),
        #[cfg(feature = "tui")]
        Command::Watch(args) => commands::watch::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Accel(args) => commands::accel::run(args),
        Command::Lm(args) => commands::lm::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Sensitivity(args) => commands::sensitivity::run(args),
        Command::Search(args) => commands::search::run(args),
        Command::Sweep(args) => commands::sweep::run(args),
        Command::Reproduce(args) => commands::reproduce::run(args),
        #[cfg(feature = "manual")]
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
        #[cfg(feature = "manual")]
        Command::Man(args) => commands::man::run(args, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
