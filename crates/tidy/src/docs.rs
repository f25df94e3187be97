//! The documents stay true: paths that they name exist, and the map names every crate.

use crate::tree::Tree;
use std::collections::BTreeSet;

/// Top-level directories whose mention in backticks is taken for a path.
const TOPS: [&str; 3] = ["crates/", "scripts/", ".ci/"];

/// The heading of a crate in the map: its directory in backticks, e.g. ``### `crates/abi` ``.
fn heading(line: &str) -> Option<&str> {
    let name = line.strip_prefix('#')?.trim_start_matches('#').trim();
    name.strip_prefix("`crates/")?.split_once('`').map(|(name, _)| name)
}

/// The crates in the order of the map, which is the order of layers, lowest first.
pub fn crate_order(map: &str) -> Vec<String> {
    map.lines().filter_map(heading).map(str::to_string).collect()
}

/// Crates without a heading in the map, headings without a crate, and crates named twice.
pub fn map_of_crates(tree: &Tree, map: &str) -> Vec<String> {
    let named = crate_order(map);
    let real: Vec<&str> = tree.crates().collect();
    let mut lines = Vec::new();
    for (at, name) in named.iter().enumerate() {
        if !real.contains(&name.as_str()) {
            lines.push(format!("the map has a heading for crates/{name}, which does not exist"));
        }
        if named[..at].contains(name) {
            lines.push(format!("the map has two headings for crates/{name}"));
        }
    }
    for name in real {
        if !named.iter().any(|n| n == name) {
            lines.push(format!("the map has no heading for crates/{name}"));
        }
    }
    lines
}

/// Files and folders directly in the crate's `src`, tests (`x_tests.rs`) left out, that its section of the
/// map does not name.
pub fn unnamed_files(tree: &Tree, map: &str, krate: &str) -> Vec<String> {
    let section = map.lines().skip_while(|line| heading(line) != Some(krate)).skip(1);
    let section = section.take_while(|line| !line.starts_with('#'));
    let named: BTreeSet<&str> = section.flat_map(code_spans).collect();
    let base = format!("crates/{krate}/src/");
    let here = tree.rust().filter_map(|(path, _)| path.strip_prefix(&base));
    let names = here.map(|path| match path.split_once('/') {
        Some((folder, _)) => format!("{folder}/"),
        None => path.to_string(),
    });
    let is_wanted = |name: &String| name != "lib.rs" && !name.ends_with("_tests.rs");
    names
        .filter(|name| is_wanted(name) && !named.contains(name.as_str()))
        .collect::<BTreeSet<String>>()
        .into_iter()
        .map(|name| format!("the map's section on crates/{krate} does not name `{name}`"))
        .collect()
}

/// What stands between backticks in a line.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_file_name(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let suffix = [".rs", ".md", ".toml", ".txt", ".tsv", ".c", ".h", ".sh"];
    span.chars().all(plain) && (suffix.iter().any(|s| span.ends_with(s)) || span.ends_with('/'))
}

/// Whether `span` names something that exists: seen from the root, or inside the crate whose section it
/// stands in. Outside the sections of crates, a mere file name may be that of any file.
fn exists(tree: &Tree, krate: Option<&str>, span: &str) -> bool {
    if tree.exists(span) {
        return true;
    }
    match krate {
        Some(k) => {
            tree.exists(&format!("crates/{k}/src/{span}"))
                || tree.exists(&format!("crates/{k}/{span}"))
        }
        None if !span.contains('/') => {
            tree.files().any(|(path, _)| path.rsplit('/').next() == Some(span))
        }
        None => false,
    }
}

/// Paths and links in a document that lead nowhere.
pub fn dead_paths(tree: &Tree, name: &str) -> Vec<String> {
    let text = tree.text(name).unwrap_or("");
    let mut lines = Vec::new();
    let mut krate = None;
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        if line.starts_with('#') {
            krate = heading(line);
        }
        for span in code_spans(line) {
            let path = TOPS.iter().any(|t| span.starts_with(t)) || is_file_name(span);
            if path && !span.contains(['*', '{', ' ']) && !exists(tree, krate, span) {
                lines.push(format!("{name}:{}: `{span}` does not exist", at + 1));
            }
        }
        for (_, rest) in line.match_indices("](").map(|(i, m)| (i, &line[i + m.len()..])) {
            let to = rest.split([')', '#']).next().unwrap_or("");
            if !to.is_empty() && !to.contains("://") && !tree.exists(to) {
                lines.push(format!("{name}:{}: the link to {to} leads nowhere", at + 1));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(map: &str) -> Tree {
        Tree::of(&[
            ("ARCHITECTURE.md", map),
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", ""),
            ("crates/b/Cargo.toml", ""),
            ("crates/b/src/ops/mod.rs", ""),
        ])
    }

    #[test]
    fn the_map_names_every_crate_once() {
        let good = "## Map\n### `crates/b`: low\n### `crates/a`\n";
        assert_eq!(map_of_crates(&tree(good), good), Vec::<String>::new());
        assert_eq!(crate_order(good), ["b", "a"]);
        let bad = "### `crates/b`\n### `crates/b`\n### `crates/c`\n";
        assert_eq!(map_of_crates(&tree(bad), bad).len(), 3);
    }

    #[test]
    fn files_that_the_map_leaves_out_are_found() {
        let map = "### `crates/b`\n| `ops/` | operations |\n### `crates/a`\n`ops/`\n";
        assert_eq!(unnamed_files(&tree(map), map, "b"), Vec::<String>::new());
        let map = "### `crates/b`\n### `crates/a`\n`ops/`\n";
        let found = unnamed_files(&tree(map), map, "b");
        assert!(found.len() == 1 && found[0].contains("`ops/`"), "{found:?}");
    }

    #[test]
    fn paths_that_do_not_exist_are_found() {
        let map = "`mod.rs` `none.rs`\n### `crates/b`\n`ops/`, `ops/mod.rs`, `gone.rs`, `a::b`\n### `crates/a`\n\
                   `lib.rs` `crates/a/src/x.rs` [b](crates/b) [c](crates/c) `mod.rs`\n\
                   ```\n`nothing.rs`\n```\n";
        let found = dead_paths(&tree(map), "ARCHITECTURE.md");
        let want = ["`none.rs`", "`gone.rs`", "a/src/x.rs", "`mod.rs`", "crates/c"];
        assert_eq!(found.len(), want.len(), "{found:?}");
        assert!(found.iter().zip(want).all(|(line, part)| line.contains(part)), "{found:?}");
    }
}
