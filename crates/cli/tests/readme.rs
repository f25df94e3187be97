//! The README's tables of what is offered are what `soloring probe` says, word for word.
//!
//! `SOLORING_WRITE_README=1 cargo test -p soloring-cli --test readme` writes them anew.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- probe: begin -->\n";
const END: &str = "<!-- probe: end -->";

/// Keys of the probe's JSON, and how the README calls them.
const SECTIONS: [(&str, &str); 5] = [
    ("operations", "operations"),
    ("setup_flags", "set-up flags"),
    ("enter_flags", "enter flags"),
    ("features", "features"),
    ("register", "register operations"),
];

fn probe() -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_soloring")).args(["probe", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(section: &Value, offered: bool) -> String {
    let lines = section.as_array().expect("a list");
    let names: Vec<&str> = lines
        .iter()
        .filter(|line| (line["soloring"] == "yes") == offered)
        .map(|line| line["name"].as_str().expect("a name"))
        .map(|name| name.strip_prefix("REGISTER_").unwrap_or(name))
        .collect();
    if names.is_empty() { "-".to_string() } else { names.join(", ") }
}

fn tables(probe: &Value) -> String {
    let mut text = String::from("| | offered | not offered |\n|---|---|---|\n");
    for (key, title) in SECTIONS {
        let section = &probe[key];
        text += &format!("| {title} | {} | {} |\n", names(section, true), names(section, false));
    }
    text
}

#[test]
fn tables_are_what_probe_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the begin mark");
    let (there, after) = rest.split_once(END).expect("the end mark");
    let now = tables(&probe());
    if std::env::var_os("SOLORING_WRITE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{now}{END}{after}")).unwrap();
        return;
    }
    assert!(
        there == now,
        "the README's tables are not up to date: run\n    SOLORING_WRITE_README=1 cargo test -p soloring-cli \
         --test readme\nthere:\n{there}\nnow:\n{now}"
    );
}
