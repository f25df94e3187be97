//! The list of tests that must pass only grows: no test that it ever named is missing from it.

use soloring_conformance::lists;
use std::process::Command;

/// Every line that the history of the list ever added, as far as this clone has the history.
fn ever_listed() -> Option<String> {
    let output = Command::new("git")
        .args(["log", "-p", "--format=", "--unified=0", "--", "data/must-pass.txt"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn no_test_was_taken_off_the_list() {
    let Some(history) = ever_listed() else {
        println!("not a git checkout: nothing to compare with");
        return;
    };
    let listed = lists::must_pass();
    let gone: Vec<&str> = history
        .lines()
        .filter_map(|line| line.strip_prefix('+'))
        .filter(|line| !line.starts_with("++") && !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !listed.contains_key(name))
        .collect();
    assert!(gone.is_empty(), "taken off data/must-pass.txt: {gone:?}");
}
