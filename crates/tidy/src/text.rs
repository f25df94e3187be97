//! Rules about text: the sentence at the top of a file, its length, and words that do not belong here.

use crate::tree::Tree;

/// Length of a Rust file, in lines, at most.
pub const LINES_MAX: usize = 700;

/// Hosts that files of this repository may name in an address.
const HOSTS: [&str; 10] = [
    "github.com",
    "doc.rust-lang.org",
    "keepachangelog.com",
    "semver.org",
    "kernel.org",
    "man7.org",
    "opensource.org",
    "apache.org",
    "localhost",
    "127.0.0.1",
];

/// Hosts of package registries, in halves: this file must not name them either.
const REGISTRIES: [(&str, &str); 6] = [
    ("crates", ".io"),
    ("pypi", ".org"),
    ("npmjs", ".org"),
    ("npmjs", ".com"),
    ("deb.debian", ".org"),
    ("proxy.golang", ".org"),
];

/// Beginnings of paths that exist on one machine only, in halves.
const PLACES: [(&str, &str); 4] =
    [("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), (".lib", "rary/")];

/// Rust files whose first line is not a `//!` sentence, or that are too long.
pub fn heads_and_lengths(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, text) in tree.rust() {
        let first = text.lines().next().unwrap_or("");
        if first.strip_prefix("//! ").is_none_or(|s| s.len() < 4) {
            lines.push(format!("{path}: its first line is not a `//!` sentence"));
        }
        let count = text.lines().count();
        if count > LINES_MAX {
            lines.push(format!("{path}: {count} lines, more than {LINES_MAX}"));
        }
    }
    lines
}

/// Names of registries, paths of one machine, and addresses of hosts that are not on the list.
pub fn foreign_words(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, text) in tree.files() {
        for (at, line) in text.lines().enumerate() {
            let mut say = |what: &str| lines.push(format!("{path}:{}: {what}", at + 1));
            for (a, b) in REGISTRIES {
                if line.contains(&format!("{a}{b}")) {
                    say("names the host of a package registry");
                }
            }
            for (a, b) in PLACES {
                if contains_path(line, &format!("{a}{b}")) {
                    say("names a path of one machine");
                }
            }
            for host in hosts(line) {
                let known = |h: &str| host == h || host.ends_with(&format!(".{h}"));
                if !HOSTS.iter().any(|h| known(h)) {
                    say(&format!("an address on {host}, which is not a host that we refer to"));
                }
            }
        }
    }
    lines
}

/// Whether `line` names the path `start`, and not merely one that contains it (`a/home/`, `homework/`).
fn contains_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}".contains(c))
    })
}

/// Hosts of the addresses in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && !".-".contains(c));
        let host = &rest[..end.unwrap_or(rest.len())];
        host.contains('.').then_some(host).or((host == "localhost").then_some(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_a_sentence_and_a_file_has_an_end() {
        let long = format!("//! A long file.\n{}", "\n".repeat(LINES_MAX));
        let tree = Tree::of(&[
            ("a.rs", "//! What this file is.\n"),
            ("b.rs", "use std::fmt;\n//! Late.\n"),
            ("c.rs", "//! \n"),
            ("d.rs", &long),
        ]);
        let found = heads_and_lengths(&tree);
        let files: Vec<&str> = found.iter().map(|l| &l[..4]).collect();
        assert_eq!(files, ["b.rs", "c.rs", "d.rs"], "{found:?}");
    }

    #[test]
    fn foreign_words_are_found_where_they_stand() {
        let (a, b) = REGISTRIES[0];
        let (c, d) = PLACES[0];
        let files = [
            ("a.md", format!("from {a}{b}")),
            ("b.md", format!("fine\ncd {c}{d}main")),
            ("c.md", format!("see https:{}example.invalid/x", "//")),
            ("d.md", format!("fine: a{c}{d}x, https://docs.kernel.org/x, http://127.0.0.1:1")),
        ];
        let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
        let found = foreign_words(&Tree::of(&files));
        let places: Vec<&str> = found.iter().map(|l| &l[..6]).collect();
        assert_eq!(places, ["a.md:1", "b.md:2", "c.md:1"], "{found:?}");
    }
}
