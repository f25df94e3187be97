//! The lock's own figures, which `soloring bench` shows among others.
//!
//! `cargo bench -p soloring-lock`; with `-- FILE` they also go to FILE as JSON.

use soloring_lock_bench::{Scale, measure};

fn main() {
    let json = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let figures = measure(Scale::FULL).unwrap_or_else(|why| {
        eprintln!("{why}");
        std::process::exit(1);
    });
    println!("{}", figures.text());
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&figures).expect("numbers and names");
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("{path}: {error}");
            std::process::exit(1);
        }
    }
}
