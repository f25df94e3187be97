//! Whether a program about to be executed can load our shared object.
//!
//! Used by `soloring run` for a clear line before anything starts, and in the process when the program
//! executes another. Reads a few hundred bytes with plain system calls; allocates nothing.
#![allow(unsafe_code)]

use crate::raw;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::endian::LittleEndian as LE;
use object::pod;
use std::ffi::{CStr, c_char};
use std::fmt;
use syscalls::Sysno;

/// Why a program cannot be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It cannot be opened: the errno (ENOENT, EACCES, ...).
    Unreadable(i32),
    /// A script whose interpreter cannot be opened: the errno.
    NoInterpreter(i32),
    /// A directory, a device, or a file without execute permission.
    NotExecutable,
    /// Neither ELF nor a script with an interpreter line.
    NotAProgram,
    /// No program interpreter: nothing loads shared objects into it.
    Static,
    /// 32-bit, x32 or another machine; the number is `e_machine`.
    Foreign(u16),
    /// Its loader is not the GNU C library's, for which our shared object is built.
    OtherLoader,
    /// Set-user-id or set-group-id, or file capabilities: the loader ignores preloads for it.
    Privileged,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unreadable(libc::ENOENT) => f.write_str("no such file"),
            Refusal::Unreadable(errno) => {
                write!(f, "{}", std::io::Error::from_raw_os_error(*errno))
            }
            Refusal::NoInterpreter(errno) => {
                write!(f, "{}: {}", self.reason(), std::io::Error::from_raw_os_error(*errno))
            }
            _ => f.write_str(self.reason()),
        }
    }
}

impl Refusal {
    /// The reason in words, without the errno.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Unreadable(_) => "cannot be read",
            Refusal::NoInterpreter(_) => {
                "the interpreter that its first line names cannot be opened"
            }
            Refusal::NotExecutable => "is not an executable file",
            Refusal::NotAProgram => {
                "is neither an ELF program nor a script with an interpreter line"
            }
            Refusal::Static => "is statically linked: it loads no shared objects, so not this one",
            Refusal::Foreign(_) => "is built for another architecture: only 64-bit x86 is served",
            Refusal::OtherLoader => "is linked against another C library than glibc",
            Refusal::Privileged => {
                "is set-id or has file capabilities: the loader ignores preloads for it"
            }
        }
    }
}

/// Scripts may name scripts as their interpreter this often; the kernel's own limit is about the same.
const SCRIPT_DEPTH_MAX: u32 = 5;

/// Decides whether the program at `path` will load our shared object; follows script interpreters.
///
/// # Errors
/// [`Refusal`] of the program or of the interpreter that would run in its place.
pub fn examine(path: &CStr) -> Result<(), Refusal> {
    let mut name = [0u8; 256];
    let mut at = path;
    for depth in 0..SCRIPT_DEPTH_MAX {
        let file = match File::open(at) {
            Ok(file) => file,
            // May be executed, not read: what it is cannot be told, and most programs load us.
            Err(Refusal::Unreadable(libc::EACCES)) if is_executable_file(at) => return Ok(()),
            Err(Refusal::Unreadable(errno)) if depth > 0 => {
                return Err(Refusal::NoInterpreter(errno));
            }
            Err(refusal) => return Err(refusal),
        };
        file.check_permission(at)?;
        let mut head = [0u8; 256];
        let len = file.read(&mut head, 0);
        match head[..len].strip_prefix(b"#!") {
            None => return file.examine_elf(),
            Some(line) => {
                let word = interpreter(line).ok_or(Refusal::NotAProgram)?;
                name[..word.len()].copy_from_slice(word);
                name[word.len()] = 0;
                at = CStr::from_bytes_until_nul(&name).map_err(|_| Refusal::NotAProgram)?;
            }
        }
    }
    Err(Refusal::NotAProgram)
}

/// The interpreter's path in a script's first line, without the `#!`.
fn interpreter(line: &[u8]) -> Option<&[u8]> {
    let line = line.split(|b| *b == b'\n').next()?;
    line.split(|b| matches!(b, b' ' | b'\t' | 0)).find(|word| !word.is_empty())
}

fn may_execute(path: &CStr) -> bool {
    let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, libc::X_OK as usize, 0, 0, 0];
    // SAFETY: the path is NUL-terminated.
    unsafe { raw::any(Sysno::faccessat.id() as usize, args) == 0 }
}

/// A regular file that may be executed, as `exec` asks for.
fn is_executable_file(path: &CStr) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    let args =
        [libc::AT_FDCWD as usize, path.as_ptr() as usize, stat.as_mut_ptr() as usize, 0, 0, 0];
    // SAFETY: the path is NUL-terminated; the buffer is written by a call that succeeds.
    let regular = unsafe {
        raw::any(Sysno::newfstatat.id() as usize, args) == 0
            && stat.assume_init().st_mode & libc::S_IFMT == libc::S_IFREG
    };
    regular && may_execute(path)
}

struct File(usize);

impl File {
    fn open(path: &CStr) -> Result<File, Refusal> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0, 0, 0];
        // SAFETY: the path is NUL-terminated.
        match unsafe { raw::any(Sysno::openat.id() as usize, args) } {
            fd if fd >= 0 => Ok(File(fd as usize)),
            err => Err(Refusal::Unreadable(-err as i32)),
        }
    }

    fn check_permission(&self, path: &CStr) -> Result<(), Refusal> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        let args = [self.0, stat.as_mut_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: the buffer is written by a call that succeeds.
        let stat = unsafe {
            if raw::any(Sysno::fstat.id() as usize, args) < 0 {
                return Err(Refusal::NotExecutable);
            }
            stat.assume_init()
        };
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG || !may_execute(path) {
            return Err(Refusal::NotExecutable);
        }
        // Without no_new_privs these would change the process's credentials and drop our preload; with
        // it they run, but unprivileged, which is not what they are for.
        // SAFETY: take no arguments, cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let set_uid = stat.st_mode & libc::S_ISUID != 0 && stat.st_uid != uid;
        let set_gid = stat.st_mode & libc::S_ISGID != 0 && stat.st_gid != gid;
        let name = c"security.capability";
        let caps = [self.0, name.as_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: the name is NUL-terminated; a size of 0 asks for the length only.
        let capable = unsafe { raw::any(Sysno::fgetxattr.id() as usize, caps) } > 0 && uid != 0;
        if set_uid || set_gid || capable {
            return Err(Refusal::Privileged);
        }
        Ok(())
    }

    /// Reads up to the buffer's length at `offset`; the number of bytes read, 0 on errors.
    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let args = [self.0, buf.as_mut_ptr() as usize, buf.len(), offset as usize, 0, 0];
        // SAFETY: the kernel writes at most the buffer's length.
        let n = unsafe { raw::any(Sysno::pread64.id() as usize, args) };
        usize::try_from(n).unwrap_or(0)
    }

    fn examine_elf(&self) -> Result<(), Refusal> {
        let mut head = [0u8; size_of::<FileHeader64<LE>>()];
        let len = self.read(&mut head, 0);
        let header = pod::from_bytes::<FileHeader64<LE>>(&head);
        let header = header.map_err(|()| Refusal::NotAProgram)?.0;
        let ident = &header.e_ident;
        if ident.magic != elf::ELFMAG {
            return Err(Refusal::NotAProgram);
        }
        // e_machine lies at the same offset in both classes.
        let machine = header.e_machine.get(LE);
        if ident.class != elf::ELFCLASS64
            || ident.data != elf::ELFDATA2LSB
            || machine != elf::EM_X86_64
        {
            return Err(Refusal::Foreign(machine));
        }
        if len < head.len() {
            return Err(Refusal::NotAProgram);
        }
        let (start, size) = (header.e_phoff.get(LE), u64::from(header.e_phentsize.get(LE)));
        for i in 0..u64::from(header.e_phnum.get(LE)) {
            let mut entry = [0u8; size_of::<ProgramHeader64<LE>>()];
            let len = self.read(&mut entry, start.saturating_add(i * size));
            let Ok((entry, _)) = pod::from_bytes::<ProgramHeader64<LE>>(&entry[..len]) else {
                return Err(Refusal::NotAProgram);
            };
            if entry.p_type.get(LE) == elf::PT_INTERP {
                return self.examine_loader(entry.p_offset.get(LE));
            }
        }
        Err(Refusal::Static)
    }

    fn examine_loader(&self, offset: u64) -> Result<(), Refusal> {
        let mut name = [0u8; 256];
        let len = self.read(&mut name, offset);
        let name = name[..len].split(|b| *b == 0).next().unwrap_or_default();
        let file = name.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if file.starts_with(b"ld-musl") { Err(Refusal::OtherLoader) } else { Ok(()) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: closes the descriptor that this value owns.
        unsafe { raw::marked(Sysno::close, [self.0, 0, 0, 0, 0]) };
    }
}

/// Looks `name` up as `execvp` does and hands the first file that may be executed to `found`.
/// Returns what `found` returns, or `None` when there is no such file on the path.
///
/// # Safety
/// `name` and `path` (the value of PATH, or null) are NUL-terminated strings.
pub unsafe fn on_path<T>(
    name: &CStr,
    path: *const c_char,
    found: impl FnOnce(&CStr) -> T,
) -> Option<T> {
    if name.to_bytes().contains(&b'/') {
        return Some(found(name));
    }
    let default = c"/bin:/usr/bin";
    // SAFETY: the caller passes a NUL-terminated string when it is not null.
    let path = if path.is_null() { default } else { unsafe { CStr::from_ptr(path) } };
    let mut full = [0u8; 4096];
    for dir in path.to_bytes().split(|b| *b == b':') {
        let dir = if dir.is_empty() { &b"."[..] } else { dir };
        let len = dir.len() + 1 + name.to_bytes().len();
        if name.to_bytes().is_empty() || len >= full.len() {
            continue;
        }
        full[..dir.len()].copy_from_slice(dir);
        full[dir.len()] = b'/';
        full[dir.len() + 1..len].copy_from_slice(name.to_bytes());
        full[len] = 0;
        let Ok(candidate) = CStr::from_bytes_until_nul(&full) else { continue };
        if is_executable_file(candidate) {
            return Some(found(candidate));
        }
    }
    None
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
