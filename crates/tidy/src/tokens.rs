//! Rules about single tokens: `unsafe` where it was allowed, and a partner for each memory ordering.

use crate::tree::Tree;
use proc_macro2::{TokenStream, TokenTree};
use std::str::FromStr;

const ALLOW: &str = "#![allow(unsafe_code)]";
const STRONG: [&str; 4] = ["Acquire", "Release", "AcqRel", "SeqCst"];
/// How far above its ordering a comment may end, in lines.
const REACH: usize = 3;

/// Every identifier and punctuation mark of a file, with its line (from 1).
fn flatten(stream: TokenStream, out: &mut Vec<(String, usize)>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => {
                out.push(("(".into(), group.span_open().start().line));
                flatten(group.stream(), out);
                out.push((")".into(), group.span_close().start().line));
            }
            TokenTree::Ident(i) => out.push((i.to_string(), i.span().start().line)),
            TokenTree::Punct(p) => out.push((p.to_string(), p.span().start().line)),
            TokenTree::Literal(_) => out.push(("\"".into(), 0)),
        }
    }
}

fn tokens(text: &str) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    if let Ok(stream) = TokenStream::from_str(text) {
        flatten(stream, &mut out);
    }
    out
}

/// Files with an `unsafe` token that do not opt in, and files that opt in without need.
pub fn unsafe_without_leave(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, text) in tree.rust() {
        let opted = text.lines().any(|l| l == ALLOW);
        let first = tokens(text).into_iter().find(|(t, _)| t == "unsafe");
        match first {
            Some((_, line)) if !opted => {
                lines.push(format!("{path}:{line}: `unsafe` without `{ALLOW}`"));
            }
            None if opted => lines.push(format!("{path}: `{ALLOW}`, and nothing is unsafe")),
            _ => {}
        }
    }
    lines
}

fn is_strong(name: &str) -> bool {
    STRONG.contains(&name)
}

/// Orderings above Relaxed without a comment in reach that speaks of the ordering.
pub fn ordering_without_partner(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, text) in tree.rust() {
        let source: Vec<&str> = text.lines().collect();
        let tokens = tokens(text);
        for (at, window) in tokens.windows(4).enumerate() {
            let [(name, _), (c1, _), (c2, _), (what, line)] = window else { unreachable!() };
            if name != "Ordering" || c1 != ":" || c2 != ":" {
                continue;
            }
            let strong = is_strong(what);
            let group = tokens[at + 4..].iter().map(|(t, _)| t.as_str()).take_while(|t| *t != ")");
            let by_name = what == "*" || what == "(" && group.into_iter().any(is_strong);
            if by_name {
                lines.push(format!("{path}:{line}: an ordering imported by name: spell it out"));
            } else if strong && !commented(&source, *line) {
                lines.push(format!(
                    "{path}:{line}: `{what}` without a comment that names its partner"
                ));
            }
        }
    }
    lines
}

/// Whether a comment on this line, or one that ends in reach above it, speaks of an ordering. All
/// lines of that comment count.
fn commented(source: &[&str], line: usize) -> bool {
    let is_comment = |l: &str| l.trim_start().starts_with("//");
    let speaks = |l: &str| {
        let Some((_, comment)) = l.split_once("//") else { return false };
        let comment = comment.to_lowercase();
        ["acquire", "release", "acqrel", "seqcst", "pairs", "partner", "dekker"]
            .iter()
            .any(|w| comment.contains(w))
    };
    let at = line - 1;
    if speaks(source[at]) {
        return true;
    }
    let Some(end) = (at.saturating_sub(REACH)..at).rev().find(|i| is_comment(source[*i])) else {
        return false;
    };
    (0..=end).rev().take_while(|i| is_comment(source[*i])).any(|i| speaks(source[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_needs_leave_and_leave_needs_unsafe() {
        let allowed = format!("//! x\n{ALLOW}\nunsafe fn f() {{}}\n");
        let idle = format!("//! x\n{ALLOW}\n// unsafe\n");
        let tree = Tree::of(&[
            ("a.rs", "//! x\nfn f() { m!(unsafe { 1 }) }\n"),
            ("b.rs", &allowed),
            ("c.rs", "//! unsafe\nconst S: &str = \"unsafe\";\n"),
            ("d.rs", &idle),
        ]);
        let found = unsafe_without_leave(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a.rs:2"), "{found:?}");
        assert!(found[1].starts_with("d.rs"), "{found:?}");
    }

    #[test]
    fn orderings_need_a_comment_in_reach() {
        let tree = Tree::of(&[
            ("a.rs", "fn f() { x.load(Ordering::Acquire) }"),
            ("b.rs", "// Acquire: pairs with g.\nfn f() {\n x.load(Ordering::Acquire) }"),
            ("c.rs", "// pairs with g\n\n\n\n\nfn f() { x.load(Ordering::SeqCst) }"),
            ("d.rs", "// a counter\nfn f() { x.load(Ordering::Release) }"),
            ("e.rs", "fn f() { x.load(Ordering::Relaxed) }"),
            ("f.rs", "use std::sync::atomic::Ordering::{self, Relaxed, Release};"),
            (
                "g.rs",
                "// Release: of f.\n// Long.\n// Longer.\nfn f() { x.load(Ordering::Release) }",
            ),
        ]);
        let found = ordering_without_partner(&tree);
        let files: Vec<&str> = found.iter().map(|l| &l[..4]).collect();
        assert_eq!(files, ["a.rs", "c.rs", "d.rs", "f.rs"], "{found:?}");
    }
}
