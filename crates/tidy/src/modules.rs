//! Which file is which module: followed from each target's root through `mod` items, as rustc does.

use crate::tree::Tree;
use std::collections::BTreeMap;
use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta};

/// Path of a module inside its target; empty for the root.
pub type ModPath = Vec<String>;

/// One target (library, binary, test, bench, example) of one crate.
pub struct Target {
    pub root: String,
    /// Each module's file. Inline modules have the file that they stand in.
    pub modules: BTreeMap<ModPath, String>,
    /// Modules that are whole files, parsed, in the order in which they are declared.
    pub files: Vec<(ModPath, String, syn::File)>,
    /// `mod` items without a file, and files that do not parse.
    pub broken: Vec<String>,
}

/// Roots of the targets that cargo finds by itself: no crate here names paths of its own.
pub fn roots(tree: &Tree, krate: &str) -> Vec<String> {
    roots_below(tree, &format!("crates/{krate}/"))
}

/// The same for the package in directory `base`, which ends in `/`.
fn roots_below(tree: &Tree, base: &str) -> Vec<String> {
    let is_root = |path: &str| {
        let Some(rest) = path.strip_prefix(base) else { return false };
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            ["build.rs"] | ["src", "lib.rs" | "main.rs"] => true,
            ["src", "bin", file] | ["tests" | "benches" | "examples", file] => {
                file.ends_with(".rs")
            }
            ["src", "bin", _, "main.rs"] | ["tests" | "benches" | "examples", _, "main.rs"] => true,
            _ => false,
        }
    };
    tree.rust().map(|(path, _)| path).filter(|p| is_root(p)).map(str::to_string).collect()
}

/// Follows one target from its root.
pub fn target(tree: &Tree, root: &str) -> Target {
    let mut target = Target {
        root: root.to_string(),
        modules: BTreeMap::new(),
        files: Vec::new(),
        broken: Vec::new(),
    };
    let dir = parent(root).to_string();
    target.file(tree, Vec::new(), root.to_string(), dir);
    target
}

impl Target {
    /// Adds the module `at` that is the file `path`; its children's files lie in `dir`.
    fn file(&mut self, tree: &Tree, at: ModPath, path: String, dir: String) {
        let Some(text) = tree.text(&path) else {
            self.broken.push(format!("{}: no file {path} for `mod {}`", self.root, at.join("::")));
            return;
        };
        let parsed = match syn::parse_file(text) {
            Ok(parsed) => parsed,
            Err(e) => {
                let line = e.span().start().line;
                self.broken.push(format!("{path}:{line}: does not parse: {e}"));
                return;
            }
        };
        self.modules.insert(at.clone(), path.clone());
        let index = self.files.len();
        self.files.push((at.clone(), path.clone(), parsed));
        let items: Vec<ItemMod> = mods(&self.files[index].2.items);
        for item in &items {
            self.item(tree, &at, item, &path, &dir, parent(&path));
        }
    }

    /// One `mod` item inside module `at`. `dir` is where its file lies, `attr_dir` what `#[path]` is
    /// relative to.
    fn item(
        &mut self,
        tree: &Tree,
        at: &ModPath,
        item: &ItemMod,
        file: &str,
        dir: &str,
        attr_dir: &str,
    ) {
        let name = item.ident.to_string();
        let mut child = at.clone();
        child.push(name.clone());
        let named = path_attribute(&item.attrs);
        if let Some((_, inner)) = &item.content {
            self.modules.insert(child.clone(), file.to_string());
            let inner_dir = join(dir, &name);
            for item in mods(inner) {
                self.item(tree, &child, &item, file, &inner_dir, &inner_dir);
            }
            return;
        }
        if let Some(named) = named {
            let path = join(attr_dir, &named);
            let children = parent(&path).to_string();
            return self.file(tree, child, path, children);
        }
        let children = join(dir, &name);
        let flat = format!("{children}.rs");
        let path = if tree.exists(&flat) { flat } else { format!("{children}/mod.rs") };
        self.file(tree, child, path, children);
    }

    /// The longest beginning of `path` that is a module.
    pub fn module_of<'a>(&self, path: &'a [String]) -> &'a [String] {
        (0..=path.len())
            .rev()
            .map(|n| &path[..n])
            .find(|p| self.modules.contains_key(*p))
            .unwrap_or(&[])
    }
}

fn mods(items: &[Item]) -> Vec<ItemMod> {
    let as_mod = |item: &Item| if let Item::Mod(m) = item { Some(m.clone()) } else { None };
    items.iter().filter_map(as_mod).collect()
}

fn path_attribute(attrs: &[Attribute]) -> Option<String> {
    attrs.iter().find_map(|a| match &a.meta {
        Meta::NameValue(nv) if nv.path.is_ident("path") => match &nv.value {
            Expr::Lit(lit) => match &lit.lit {
                Lit::Str(s) => Some(s.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Joins and resolves `..`.
fn join(dir: &str, rest: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').filter(|p| !p.is_empty()).collect();
    for part in rest.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Rust files that no target reaches, and `mod` items that lead nowhere.
pub fn unreachable(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let mut reached = std::collections::BTreeSet::new();
    for base in tree.packages() {
        for root in roots_below(tree, base) {
            let target = target(tree, &root);
            reached.extend(target.files.into_iter().map(|(_, path, _)| path));
            broken.extend(target.broken);
        }
    }
    let lost = tree.rust().map(|(path, _)| path).filter(|path| !reached.contains(*path));
    broken.extend(lost.map(|path| format!("{path}: no target of its crate reaches this file")));
    broken.sort();
    broken.dedup();
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_as_rustc_finds_them() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", "mod b; mod c; mod d { mod e; }"),
            ("crates/a/src/b.rs", "#[path = \"x.rs\"] mod y;"),
            ("crates/a/src/x.rs", ""),
            ("crates/a/src/c/mod.rs", "mod f;"),
            ("crates/a/src/c/f.rs", ""),
            ("crates/a/src/d/e.rs", ""),
            ("crates/a/tests/t/main.rs", "#[path = \"../../src/x.rs\"] mod x;"),
        ]);
        assert_eq!(unreachable(&tree), Vec::<String>::new());
        let lib = target(&tree, "crates/a/src/lib.rs");
        let path = |p: &[&str]| p.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(lib.modules[&path(&["b", "y"])], "crates/a/src/x.rs");
        assert_eq!(lib.modules[&path(&["c", "f"])], "crates/a/src/c/f.rs");
        assert_eq!(lib.modules[&path(&["d", "e"])], "crates/a/src/d/e.rs");
        assert_eq!(lib.module_of(&path(&["c", "f", "Thing"])), path(&["c", "f"]));
    }

    #[test]
    fn a_lost_file_and_a_missing_one_are_reported() {
        let tree = Tree::of(&[
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", "mod gone;"),
            ("crates/a/src/lost.rs", ""),
        ]);
        let found = unreachable(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("no file crates/a/src/gone/mod.rs"), "{found:?}");
        assert!(found[1].contains("lost.rs: no target"), "{found:?}");
    }
}
