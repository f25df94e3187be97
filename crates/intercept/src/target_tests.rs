//! Which files count as programs that load our shared object.
#![allow(unsafe_code)]

use super::*;
use std::ffi::CString;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("soloring-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
    fn file(&self, name: &str, mode: u32, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(content).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn verdict(path: impl AsRef<Path>) -> Result<(), Refusal> {
    examine(&CString::new(path.as_ref().to_str().unwrap()).unwrap())
}

/// This test program's own bytes with one field changed.
fn with_bytes(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    elf[offset..offset + bytes.len()].copy_from_slice(bytes);
    elf
}

#[test]
fn programs_and_scripts_that_load_us() {
    let scratch = Scratch::new("loads");
    assert_eq!(verdict(std::env::current_exe().unwrap()), Ok(()));
    assert_eq!(verdict("/bin/sh"), Ok(()));
    let script = scratch.file("script", 0o755, b"#! /bin/sh -e\ntrue\n");
    assert_eq!(verdict(&script), Ok(()));
    let line = format!("#!{}\n", script.display());
    assert_eq!(verdict(scratch.file("nested", 0o755, line.as_bytes())), Ok(()));
}

#[test]
fn what_cannot_be_executed() {
    let scratch = Scratch::new("cannot");
    assert_eq!(verdict(scratch.0.join("absent")), Err(Refusal::Unreadable(libc::ENOENT)));
    assert_eq!(verdict(&scratch.0), Err(Refusal::NotExecutable));
    assert_eq!(verdict(scratch.file("plain", 0o644, b"\x7fELF")), Err(Refusal::NotExecutable));
    assert_eq!(verdict(scratch.file("text", 0o755, b"hello\n")), Err(Refusal::NotAProgram));
    assert_eq!(verdict(scratch.file("empty", 0o755, b"")), Err(Refusal::NotAProgram));
    assert_eq!(verdict(scratch.file("bare", 0o755, b"#!\n")), Err(Refusal::NotAProgram));
    let loop_path = scratch.0.join("loop");
    let line = format!("#!{}\n", loop_path.display());
    scratch.file("loop", 0o755, line.as_bytes());
    assert_eq!(verdict(&loop_path), Err(Refusal::NotAProgram));
    let gone = scratch.file("gone", 0o755, b"#!/nonexistent/interpreter\n");
    assert_eq!(verdict(gone), Err(Refusal::NoInterpreter(libc::ENOENT)));
}

#[test]
fn foreign_and_static_programs() {
    let scratch = Scratch::new("foreign");
    let arm = with_bytes(18, &183u16.to_le_bytes());
    assert_eq!(verdict(scratch.file("arm", 0o755, &arm)), Err(Refusal::Foreign(183)));
    let narrow = with_bytes(4, &[1]);
    assert_eq!(verdict(scratch.file("narrow", 0o755, &narrow)), Err(Refusal::Foreign(62)));
    let no_headers = with_bytes(56, &0u16.to_le_bytes());
    assert_eq!(verdict(scratch.file("static", 0o755, &no_headers)), Err(Refusal::Static));
    let cut = scratch.file("cut", 0o755, &with_bytes(4, &[2])[..70]);
    assert_eq!(verdict(cut), Err(Refusal::NotAProgram));
    let mut musl = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let loader = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = musl.windows(loader.len()).position(|w| w == loader).unwrap();
    musl[at..at + loader.len()].copy_from_slice(b"/lib/ld-musl-x86_64.so.1\0\0\0\0");
    assert_eq!(verdict(scratch.file("musl", 0o755, &musl)), Err(Refusal::OtherLoader));
}

#[test]
fn lookup_on_the_path() {
    let scratch = Scratch::new("path");
    scratch.file("tool", 0o755, b"#!/bin/sh\n");
    scratch.file("data", 0o644, b"");
    let first = Scratch::new("path-first");
    std::fs::create_dir(first.0.join("tool")).unwrap();
    let path =
        CString::new(format!("/nonexistent:{}:{}:/bin", first.0.display(), scratch.0.display()))
            .unwrap();
    let look = |name: &CStr| {
        // SAFETY: both are NUL-terminated.
        unsafe { on_path(name, path.as_ptr(), |p| p.to_str().unwrap().to_owned()) }
    };
    assert_eq!(look(c"tool"), Some(format!("{}/tool", scratch.0.display())));
    assert_eq!(look(c"data"), None);
    assert_eq!(look(c"absent"), None);
    assert_eq!(look(c""), None);
    assert_eq!(look(c"./absent"), Some("./absent".to_owned()));
}
