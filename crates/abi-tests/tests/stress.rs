//! A short stress run: every completion accounted for, and no thread stands still.

use std::process::Command;

#[test]
fn everybody_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_stress"))
        .args(["--seconds", "5"])
        .output()
        .expect("the stress program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    let count = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.trim_end().ends_with(&format!(" {name}")));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    // Each kind of foreign locker must have been there, or the run has shown nothing.
    for name in [
        "submitted",
        "rings",
        "foreign waits",
        "registrations refused",
        "inspections",
        "rings looked into",
    ] {
        assert!(count(name) > 0, "no {name}:\n{text}");
    }
}
