//! Order: a file that promises an order of its modules keeps it, and crates keep the order of the map.

use crate::imports::imports;
use crate::modules::target;
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// The sentence by which a crate's root promises that its `mod` list is an order.
pub const PROMISE: &str = "each may import only from those before it";

/// Imports against the order of the `mod` list, in every library whose root promises one. The files of
/// a directory module stand at the place of the module.
pub fn against_order(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (root, text) in tree.rust() {
        if !root.ends_with("src/lib.rs") || !text.contains(PROMISE) {
            continue;
        }
        let target = target(tree, root);
        let Some((_, _, file)) = target.files.first() else { continue };
        let order: BTreeMap<String, usize> = file
            .items
            .iter()
            .filter_map(
                |i| if let syn::Item::Mod(m) = i { Some(m.ident.to_string()) } else { None },
            )
            .enumerate()
            .map(|(at, name)| (name, at))
            .collect();
        let place: BTreeMap<&str, (usize, &str)> = target
            .files
            .iter()
            .filter_map(|(at, path, _)| {
                let top = at.first()?;
                Some((path.as_str(), (*order.get(top)?, top.as_str())))
            })
            .collect();
        let mut edges = BTreeSet::new();
        let before = lines.len();
        for import in imports(&target) {
            let from = place.get(import.from.as_str());
            let to = place.get(import.to.as_str());
            let (Some((from, importer)), Some((to, name))) = (from, to) else { continue };
            if to != from {
                edges.insert((*importer, *name));
            }
            if to > from {
                lines.push(format!(
                    "{}:{} imports from `{name}`, which stands behind it in {root}",
                    import.from, import.line
                ));
            }
        }
        if lines.len() > before {
            lines.push(format!("{root}: {}", order_that_holds(&order, &edges)));
        }
    }
    lines
}

/// An order of the modules without an import from behind, as near to the present one as it gets.
fn order_that_holds(order: &BTreeMap<String, usize>, edges: &BTreeSet<(&str, &str)>) -> String {
    let mut left: Vec<&str> = order.keys().map(String::as_str).collect();
    left.sort_by_key(|name| order[*name]);
    let mut placed: Vec<&str> = Vec::new();
    while !left.is_empty() {
        let free = |name: &str| edges.iter().all(|(from, to)| *from != name || placed.contains(to));
        let Some(at) = left.iter().position(|name| free(name)) else {
            return format!("no order holds: {} import from each other", left.join(", "));
        };
        placed.push(left.remove(at));
    }
    format!("an order that holds: {}", placed.join(" "))
}

/// Dependencies between crates of the project that go up in `order` (lowest first), and crates that are
/// not in it. Dependencies for tests only do not count.
pub fn crates_against_order(tree: &Tree, order: &[String]) -> Vec<String> {
    let place = |name: &str| order.iter().position(|o| o == name);
    let mut lines = Vec::new();
    for krate in tree.crates() {
        let Some(own) = place(krate) else {
            lines.push(format!("crates/{krate}: not in the order of crates"));
            continue;
        };
        for name in dependencies(tree, krate) {
            match place(&name) {
                Some(at) if at < own => {}
                Some(_) => lines.push(format!("crates/{krate} depends on {name}, above it")),
                None => lines.push(format!("crates/{krate} depends on {name}, not in the order")),
            }
        }
    }
    lines
}

/// The project's own crates (by directory) that `krate` depends on, other than for tests.
fn dependencies(tree: &Tree, krate: &str) -> Vec<String> {
    let text = tree.text(&format!("crates/{krate}/Cargo.toml")).unwrap_or("");
    let Ok(manifest) = text.parse::<toml::Table>() else { return Vec::new() };
    let Some(toml::Value::Table(deps)) = manifest.get("dependencies") else { return Vec::new() };
    deps.keys().filter_map(|name| directory(tree, name)).collect()
}

/// The directory of a package of ours.
fn directory(tree: &Tree, package: &str) -> Option<String> {
    tree.crates()
        .find(|dir| {
            let text = tree.text(&format!("crates/{dir}/Cargo.toml")).unwrap_or("");
            let Ok(manifest) = text.parse::<toml::Table>() else { return false };
            manifest.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str())
                == Some(package)
        })
        .map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_from_below_in_the_list_is_reported() {
        let lib = format!("//! {PROMISE} in this list.\nmod low;\nmod ops;\nmod high;");
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", &lib),
            ("crates/a/src/low.rs", "use crate::high::X;"),
            ("crates/a/src/ops/mod.rs", "pub mod one;"),
            ("crates/a/src/ops/one.rs", "use crate::low::X; use super::Y;"),
            ("crates/a/src/high.rs", "use crate::ops::one::X;"),
        ]);
        let found = against_order(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("crates/a/src/low.rs:1 imports from `high`"), "{found:?}");
        assert!(found[1].ends_with("no order holds: low, ops, high import from each other"));
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", &lib),
            ("crates/a/src/low.rs", "use crate::ops::X;"),
            ("crates/a/src/ops/mod.rs", ""),
            ("crates/a/src/high.rs", ""),
        ]);
        assert!(against_order(&tree)[1].ends_with("an order that holds: ops low high"));
    }

    #[test]
    fn crates_keep_their_order() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", "[package]\nname = \"x-a\"\n[dependencies]\nx-b = \"1\""),
            ("crates/b/Cargo.toml", "[package]\nname = \"x-b\"\n[dev-dependencies]\nx-a = \"1\""),
            ("crates/c/Cargo.toml", "[package]\nname = \"x-c\""),
        ]);
        let order = |names: &[&str]| names.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(crates_against_order(&tree, &order(&["b", "a", "c"])), Vec::<String>::new());
        let found = crates_against_order(&tree, &order(&["a", "b"]));
        assert_eq!(
            found,
            ["crates/a depends on b, above it", "crates/c: not in the order of crates"]
        );
    }
}
