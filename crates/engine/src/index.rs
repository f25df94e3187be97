//! Cancel index: which cancelable requests have a given key, in O(1) per insert, remove and find.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::req::NIL;

/// Multiplicative hash for integer keys: the keys are the program's own, and a program can only slow
/// itself down.
#[derive(Default, Clone)]
pub struct IntHasher(u64);

impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(*b as u64);
        }
    }

    fn write_u64(&mut self, v: u64) {
        let mixed = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    key: u64,
    linked: bool,
}

/// Chains of slab indices by key, newest first.
#[derive(Default)]
pub struct Index {
    heads: HashMap<u64, u32, BuildHasherDefault<IntHasher>>,
    links: Vec<Link>,
}

impl Index {
    pub fn insert(&mut self, key: u64, index: u32) {
        let at = index as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link { prev: NIL, next: NIL, key: 0, linked: false });
        }
        debug_assert!(!self.links[at].linked);
        let next = self.heads.insert(key, index).unwrap_or(NIL);
        if next != NIL {
            self.links[next as usize].prev = index;
        }
        self.links[at] = Link { prev: NIL, next, key, linked: true };
    }

    /// Takes `index` out; false when it was not in.
    pub fn remove(&mut self, index: u32) -> bool {
        let at = index as usize;
        if self.links.get(at).is_none_or(|l| !l.linked) {
            return false;
        }
        let Link { prev, next, key, .. } = self.links[at];
        self.links[at].linked = false;
        if prev != NIL {
            self.links[prev as usize].next = next;
        } else if next != NIL {
            self.heads.insert(key, next);
        } else {
            self.heads.remove(&key);
        }
        if next != NIL {
            self.links[next as usize].prev = prev;
        }
        true
    }

    /// Indices with `key`, newest first.
    pub fn chain(&self, key: u64) -> Chain<'_> {
        Chain { index: self, at: self.heads.get(&key).copied().unwrap_or(NIL) }
    }
}

/// Iterator over one chain.
pub struct Chain<'a> {
    index: &'a Index,
    at: u32,
}

impl Iterator for Chain<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.at == NIL {
            return None;
        }
        let current = self.at;
        self.at = self.index.links[current as usize].next;
        Some(current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_survive_removal_anywhere() {
        let mut ix = Index::default();
        for i in 0..5 {
            ix.insert(7, i);
        }
        ix.insert(8, 5);
        assert!(ix.remove(2) && ix.remove(4) && ix.remove(0) && !ix.remove(0));
        assert_eq!(ix.chain(7).collect::<Vec<_>>(), [3, 1]);
        assert!(ix.remove(1) && ix.remove(3));
        assert_eq!(ix.chain(7).next(), None);
        assert_eq!(ix.chain(8).collect::<Vec<_>>(), [5]);
    }
}
