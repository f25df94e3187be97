//! No import cycle between files: the strongly connected parts of each target's import graph.

use crate::imports::{Import, imports};
use crate::modules::{roots, target};
use crate::tree::Tree;
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;
use std::collections::BTreeMap;

/// One line for each import that lies on a cycle, with the files of the cycle named before them.
pub fn cycles(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for krate in tree.crates() {
        for root in roots(tree, krate) {
            lines.extend(cycles_among(&imports(&target(tree, &root))));
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

/// As [`cycles`], for the imports of one target.
pub fn cycles_among(imports: &[Import]) -> Vec<String> {
    let mut graph = DiGraph::<&str, usize>::new();
    let mut nodes = BTreeMap::new();
    for import in imports {
        let mut node = |name| *nodes.entry(name).or_insert_with(|| graph.add_node(name));
        let (from, to) = (node(import.from.as_str()), node(import.to.as_str()));
        graph.add_edge(from, to, import.line);
    }
    let mut lines = Vec::new();
    for part in tarjan_scc(&graph) {
        if part.len() < 2 {
            continue;
        }
        let mut names: Vec<&str> = part.iter().map(|n| graph[*n]).collect();
        names.sort_unstable();
        let on_it = imports
            .iter()
            .filter(|i| names.contains(&i.from.as_str()) && names.contains(&i.to.as_str()))
            .map(|i| format!("\n    {}:{} imports from {}", i.from, i.line, i.to));
        lines.push(format!("cycle: {}{}", names.join(" "), on_it.collect::<String>()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_of_three_is_found_and_a_diamond_is_none() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", "mod b; mod c; mod d; use b::X;"),
            ("crates/a/src/b.rs", "use crate::c::X;"),
            ("crates/a/src/c.rs", "use crate::d::X;"),
            ("crates/a/src/d.rs", "fn f() { crate::b::g() }"),
            ("crates/e/Cargo.toml", ""),
            ("crates/e/src/lib.rs", "mod b; mod c; mod d; use {b::X, c::Y};"),
            ("crates/e/src/b.rs", "use crate::d::X;"),
            ("crates/e/src/c.rs", "use crate::d::X;"),
            ("crates/e/src/d.rs", ""),
        ]);
        let found = cycles(&tree);
        assert_eq!(found.len(), 1, "{found:?}");
        let head = "cycle: crates/a/src/b.rs crates/a/src/c.rs crates/a/src/d.rs\n";
        assert!(found[0].starts_with(head), "{found:?}");
        assert!(found[0].contains("src/d.rs:1 imports from crates/a/src/b.rs"), "{found:?}");
    }
}
