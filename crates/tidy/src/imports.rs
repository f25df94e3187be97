//! Which file imports from which: every path that leads into the same target, in `use` and elsewhere.

use crate::modules::{ModPath, Target};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, Macro, Path, UseTree, Visibility};

/// `from` imports from `to`; first seen on `line` of `from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub to: String,
    pub line: usize,
}

/// All imports between files of one target. A file's paths into itself are none, and neither is a
/// `mod` item.
pub fn imports(target: &Target) -> Vec<Import> {
    let mut found = BTreeMap::<(String, String), usize>::new();
    for (at, path, file) in &target.files {
        let mut aliases = Aliases { target, at: at.clone(), names: BTreeMap::new() };
        aliases.visit_file(file);
        let mut finder =
            Finder { target, at: at.clone(), aliases: aliases.names, seen: BTreeSet::new() };
        finder.visit_file(file);
        for (to, line) in finder.seen {
            if to != *path {
                let first = found.entry((path.clone(), to)).or_insert(line);
                *first = line.min(*first);
            }
        }
    }
    found.into_iter().map(|((from, to), line)| Import { from, to, line }).collect()
}

/// Where a path leads, as an absolute path inside the target; `None` for other crates and locals.
fn resolve(target: &Target, at: &ModPath, path: &[String]) -> Option<ModPath> {
    let mut base;
    let rest = match path.first()?.as_str() {
        "crate" => {
            base = ModPath::new();
            &path[1..]
        }
        "self" => {
            base = at.clone();
            &path[1..]
        }
        "super" => {
            base = at.clone();
            let ups = path.iter().take_while(|s| *s == "super").count();
            base.truncate(base.len().checked_sub(ups)?);
            &path[ups..]
        }
        child => {
            base = at.clone();
            base.push(child.to_string());
            target.modules.contains_key(&base).then_some(())?;
            base.pop();
            path
        }
    };
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The leaves of a use tree, each with the name that it gets (`None` for a glob).
fn leaves(tree: &UseTree, prefix: &mut Vec<String>, out: &mut Vec<(Vec<String>, Option<String>)>) {
    match tree {
        UseTree::Path(p) => {
            prefix.push(p.ident.to_string());
            leaves(&p.tree, prefix, out);
            prefix.pop();
        }
        UseTree::Name(n) if n.ident == "self" => {
            out.push((prefix.clone(), prefix.last().cloned()));
        }
        UseTree::Name(n) => {
            let mut path = prefix.clone();
            path.push(n.ident.to_string());
            out.push((path, Some(n.ident.to_string())));
        }
        UseTree::Rename(r) => {
            let mut path = prefix.clone();
            if r.ident != "self" {
                path.push(r.ident.to_string());
            }
            out.push((path, Some(r.rename.to_string())));
        }
        UseTree::Glob(_) => out.push((prefix.clone(), None)),
        UseTree::Group(g) => {
            for tree in &g.items {
                leaves(tree, prefix, out);
            }
        }
    }
}

fn use_leaves(item: &ItemUse) -> Vec<(Vec<String>, Option<String>)> {
    let mut out = Vec::new();
    if item.leading_colon.is_none() {
        leaves(&item.tree, &mut Vec::new(), &mut out);
    }
    out
}

/// First pass: names that a `use` gives to modules (`use crate::ops` makes `ops::rw` a path of ours).
struct Aliases<'a> {
    target: &'a Target,
    at: ModPath,
    names: BTreeMap<(ModPath, String), ModPath>,
}

impl<'ast> Visit<'ast> for Aliases<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.at.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for (path, name) in use_leaves(item) {
            let Some(to) = resolve(self.target, &self.at, &path) else { continue };
            if let (Some(name), true) = (name, self.target.modules.contains_key(&to)) {
                self.names.insert((self.at.clone(), name), to);
            }
        }
    }
}

/// Second pass: where everything leads.
struct Finder<'a> {
    target: &'a Target,
    at: ModPath,
    aliases: BTreeMap<(ModPath, String), ModPath>,
    seen: BTreeSet<(String, usize)>,
}

impl Finder<'_> {
    fn note(&mut self, path: &[String], line: usize) {
        let alias = path.first().and_then(|f| self.aliases.get(&(self.at.clone(), f.clone())));
        let to = match alias {
            Some(base) => base.iter().chain(&path[1..]).cloned().collect(),
            None => match resolve(self.target, &self.at, path) {
                Some(to) => to,
                None => return,
            },
        };
        let module = self.target.module_of(&to);
        self.seen.insert((self.target.modules[module].clone(), line));
    }

    /// Paths inside a macro's tokens, which syn does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.macro_path(&mut path, line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(p) if p.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    let base = if colons == 2 { path.clone() } else { Vec::new() };
                    self.macro_path(&mut path, line);
                    if base.is_empty() {
                        self.tokens(group.stream());
                    }
                    colons = 0;
                }
                _ => {
                    self.macro_path(&mut path, line);
                    colons = 0;
                }
            }
        }
        self.macro_path(&mut path, line);
    }

    fn macro_path(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.note(path, line);
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.at.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for (path, _) in use_leaves(item) {
            self.note(&path, item.span().start().line);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        // A single name is a local, an item of this module, or was imported by a `use`.
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
            self.note(&names, path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast Macro) {
        self.visit_path(&mac.path);
        self.tokens(mac.tokens.clone());
    }

    /// `pub(crate)` and `pub(super)` import nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::target;
    use crate::tree::Tree;

    fn found(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let tree = Tree::of(files);
        let target = target(&tree, "lib.rs");
        assert!(target.broken.is_empty(), "{:?}", target.broken);
        imports(&target).into_iter().map(|i| (i.from, i.to)).collect()
    }

    fn edge(from: &str, to: &str) -> (String, String) {
        (from.to_string(), to.to_string())
    }

    #[test]
    fn every_way_to_name_another_file() {
        for text in [
            "use crate::b::X;",
            "use crate::{b, c};",
            "use crate::b as other; fn f() { other::g() }",
            "use super::b::{self, X};",
            "fn f() -> crate::b::X { todo() }",
            "fn f() { super::b::g() }",
            "fn f() { call!(1, crate::b::g()) }",
            "macro_rules! m { () => { $crate::b::g() } }",
            "mod t { use super::super::b::*; }",
        ] {
            let edges = found(&[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", text),
                ("b.rs", ""),
                ("c.rs", ""),
            ]);
            assert!(edges.contains(&edge("a.rs", "b.rs")), "{text}: {edges:?}");
        }
    }

    #[test]
    fn what_is_no_import() {
        for text in [
            "pub(crate) fn f() {}",
            "use ::b::X;",
            "use std::b::X;",
            "fn f(b: u8) { let _ = b; }",
            "#[allow(b::c)] fn f() {}",
            "mod t { use super::*; fn f() { self::g() } }",
        ] {
            let edges = found(&[("lib.rs", "mod a; mod b;"), ("a.rs", text), ("b.rs", "")]);
            assert_eq!(edges, [], "{text}");
        }
    }

    #[test]
    fn a_parent_that_calls_its_child_imports_it() {
        let edges = found(&[
            ("lib.rs", "mod p;"),
            ("p/mod.rs", "mod c; pub struct Arg; fn f() { c::g() }"),
            ("p/c.rs", "use super::Arg;"),
        ]);
        assert_eq!(edges, [edge("p/c.rs", "p/mod.rs"), edge("p/mod.rs", "p/c.rs")]);
    }
}
