//! Standard output and the one line on standard error: neither may panic when nobody reads.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;

/// Status of a command whose reader went away, as the shell reports death by SIGPIPE.
const BROKEN_PIPE: u8 = 128 + 13;

/// Writes `text` and a line end to standard output at once.
///
/// # Errors
/// As `write(2)`; a broken pipe is for [`fail`] to recognise.
pub fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// On SIGINT, SIGTERM or SIGHUP: calls `first`, removes `dir`, exits.
pub fn clean_up_when_interrupted(dir: &Path, first: impl Fn() + Send + 'static) -> Result<()> {
    let dir = dir.to_owned();
    ctrlc::set_handler(move || {
        first();
        let _ = std::fs::remove_dir_all(&dir);
        std::process::exit(130);
    })
    .context("cannot catch interrupts")
}

/// Ends with the help or version that was asked for, or with one line about the wrong command line.
pub fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
    } else {
        let text = error.to_string();
        // The first paragraph: what is missing is listed line by line below the words that say so.
        let paragraph: Vec<_> =
            text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let paragraph = paragraph.join(" ");
        let what = paragraph.trim_start_matches("error: ");
        let _ = writeln!(io::stderr(), "soloring: {what} (try --help)");
    }
    ExitCode::from(error.exit_code() as u8)
}

/// Ends a command: one line on standard error and a status that is not zero.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(broken) {
        return ExitCode::from(BROKEN_PIPE);
    }
    let text = format!("{error:#}").replace('\n', " ");
    let _ = writeln!(io::stderr(), "soloring: {text}");
    ExitCode::FAILURE
}
