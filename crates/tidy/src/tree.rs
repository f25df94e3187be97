//! The tracked text of the repository, read once.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Every text file that git would track, by its path from the root, with `/` between its parts.
#[derive(Debug, Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
    /// Paths of files and directories, text or not.
    paths: std::collections::BTreeSet<String>,
}

impl Tree {
    /// Reads the tree under `root`. What .gitignore names is left out, and so is `.git`.
    ///
    /// # Errors
    /// When a directory or a file cannot be read.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree::default();
        // `require_git`: an unpacked archive has no .git, and its rules hold all the same.
        let walk = ignore::WalkBuilder::new(root)
            .hidden(false)
            .parents(false)
            .require_git(false)
            .filter_entry(|e| e.file_name() != ".git")
            .build();
        for entry in walk {
            let entry = entry?;
            let path = entry.path();
            let name = path.strip_prefix(root)?.to_str().context("a path that is not UTF-8")?;
            if name.is_empty() {
                continue;
            }
            tree.paths.insert(name.to_string());
            if entry.file_type().is_some_and(|t| t.is_file()) {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
                if let Ok(text) = String::from_utf8(bytes) {
                    tree.files.insert(name.to_string(), text);
                }
            }
        }
        Ok(tree)
    }

    /// A tree made by hand, for the tests of the rules.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            for (at, _) in path.match_indices('/') {
                tree.paths.insert(path[..at].to_string());
            }
            tree.paths.insert(path.to_string());
            tree.files.insert(path.to_string(), text.to_string());
        }
        tree
    }

    /// A file's text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether a file or a directory of this name is tracked.
    pub fn exists(&self, path: &str) -> bool {
        self.paths.contains(path.trim_end_matches('/'))
    }

    /// All files, in order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// All Rust files.
    pub fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The directories under `crates/` that hold a Cargo.toml, by name.
    pub fn crates(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|path| {
            let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!name.contains('/')).then_some(name)
        })
    }

    /// Directories of all packages below the root, the scripts' among them, with a `/` at the end.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|p| p.strip_suffix("Cargo.toml")).filter(|p| p.ends_with('/'))
    }
}
