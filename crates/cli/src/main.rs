//! The `soloring` command: reads the command line and hands over to one file per command.

mod backend;
mod bench;
mod demo;
mod deny;
mod echo_check;
mod launch;
mod out;
mod probe;
mod run;
mod static_child;
mod stats;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// io_uring in user space: runs io_uring programs where the kernel's ring is refused.
#[derive(Parser)]
#[command(name = "soloring", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an unmodified program with its io_uring calls carried out by soloring
    Run(run::Args),
    /// Run an io_uring program with the kernel's ring denied, and check everything it did
    Demo(demo::Args),
    /// Show what the kernel here offers, or how it refuses, beside what soloring offers
    Probe(probe::Args),
    /// Compare our ring, the kernel's ring and plain system calls, all in one run
    Bench(bench::Args),
    /// Model-check the ring lock, and show how the schemes tried before it fail
    Verify(verify::Args),
    /// One variant of the bench
    #[command(name = "__bench-worker", hide = true)]
    BenchWorker(bench::worker::Args),
    /// Check a TCP echo server: every byte must come back
    #[command(name = "__echo-check", hide = true)]
    EchoCheck(echo_check::Args),
    /// The program that `demo` runs: an ordinary io_uring client
    #[command(name = "__demo-client", hide = true)]
    DemoClient(demo::client::Args),
}

fn main() -> ExitCode {
    // Before the command line is parsed: what follows is another program's argument vector, verbatim.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|name| static_child::is(&name)) {
        return static_child::main(args);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return out::usage(&error),
    };
    let outcome = match cli.command {
        Command::Run(args) => run::main(args),
        Command::Demo(args) => demo::main(args),
        Command::Probe(args) => probe::main(args),
        Command::Bench(args) => bench::main(args),
        Command::Verify(args) => verify::main(args),
        Command::BenchWorker(args) => bench::worker::main(args),
        Command::EchoCheck(args) => echo_check::main(args),
        Command::DemoClient(args) => demo::client::main(args),
    };
    outcome.unwrap_or_else(|error| out::fail(&error))
}
