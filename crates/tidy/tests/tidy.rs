//! The rules of the house, applied to this repository.

use soloring_tidy::tree::Tree;
use soloring_tidy::{cycles, docs, layers, modules, text, tokens};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Tree::read(&root.canonicalize().unwrap()).unwrap()
});

/// Breaches that are known and not mended yet: one a line, without line numbers. Only shrinks.
const KNOWN: &str = include_str!("../known.txt");

/// A breach by its first line, without the line number: what stays the same while its file changes.
fn key(breach: &str) -> String {
    let first = breach.lines().next().unwrap_or("");
    let Some((path, rest)) = first.split_once(':') else { return first.to_string() };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{path}:{}", rest.strip_prefix(':').unwrap_or(rest))
}

/// Fails on breaches of `rule` that are not known, and on known ones that are gone.
#[track_caller]
fn none(rule: &str, broken: Vec<String>) {
    let known: BTreeSet<&str> =
        KNOWN.lines().filter_map(|l| l.strip_prefix(rule)?.strip_prefix(' ')).collect();
    let keys: BTreeSet<String> = broken.iter().map(|b| key(b)).collect();
    let new: Vec<&str> =
        broken.iter().map(String::as_str).filter(|b| !known.contains(key(b).as_str())).collect();
    let gone: Vec<&&str> = known.iter().filter(|k| !keys.contains(**k)).collect();
    assert!(new.is_empty(), "{} break the rule `{rule}`:\n{}", new.len(), new.join("\n"));
    assert!(gone.is_empty(), "mended, so take them off known.txt: {gone:#?}");
}

fn map() -> &'static str {
    TREE.text("ARCHITECTURE.md").expect("ARCHITECTURE.md")
}

#[test]
fn the_tree_was_read() {
    assert!(TREE.rust().count() > 100 && TREE.crates().count() > 5);
    assert!(TREE.exists("crates/tidy/src") && TREE.exists(".ci/run") && !TREE.exists("target"));
}

#[test]
fn every_file_belongs_to_a_target() {
    none("files", modules::unreachable(&TREE));
}

#[test]
fn no_import_cycle_between_files() {
    none("cycles", cycles::cycles(&TREE));
}

#[test]
fn a_promised_order_of_files_is_kept() {
    none("order", layers::against_order(&TREE));
}

#[test]
fn crates_depend_only_on_those_above_them_in_the_map() {
    none("crates", layers::crates_against_order(&TREE, &docs::crate_order(map())));
}

#[test]
fn every_file_begins_with_a_sentence_and_is_short() {
    none("heads", text::heads_and_lengths(&TREE));
}

#[test]
fn unsafe_code_is_allowed_by_file() {
    none("unsafe", tokens::unsafe_without_leave(&TREE));
}

#[test]
fn every_strong_ordering_names_its_partner() {
    none("orderings", tokens::ordering_without_partner(&TREE));
}

#[test]
fn the_map_names_every_crate() {
    none("map", docs::map_of_crates(&TREE, map()));
}

#[test]
fn the_map_names_every_file_of_the_engine() {
    none("files", docs::unnamed_files(&TREE, map(), "engine"));
}

#[test]
fn documents_name_what_exists() {
    for document in ["README.md", "ARCHITECTURE.md", "LOCKING.md"] {
        none("paths", docs::dead_paths(&TREE, document));
    }
}

#[test]
fn nothing_of_one_machine_is_in_the_tree() {
    none("words", text::foreign_words(&TREE));
}
