//! `exec`, `posix_spawn`, `system` and `popen`: what is executed finds us in its environment.
//!
//! Each function completes the environment and lets the C library do the rest. The variadic ones are a
//! few instructions that turn their arguments into a vector. All of it may run in a child of `vfork`.
#![allow(unsafe_code)]

use crate::execfd;
use crate::next::{missing, next};
use crate::stats;
use libc::{FILE, c_char, c_int, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t};
use soloring_intercept::target::{self, Refusal};
use soloring_intercept::{environment, raw};
use std::ffi::CStr;
use std::ptr;

/// A NULL-terminated vector of strings.
type Strings = *const *const c_char;

unsafe extern "C" {
    static environ: Strings;
}

/// The program's environment as it stands.
fn current() -> Strings {
    // SAFETY: the C library's own variable; the program may change it at any time, as for execv.
    unsafe { environ }
}

/// What to execute in place of a program that cannot load us: the command that supervises it.
struct Detour {
    path: &'static CStr,
    argv: environment::Pages,
}

impl Detour {
    fn argv(&self) -> Strings {
        self.argv.as_mut_ptr::<*const c_char>().cast_const()
    }

    /// `soloring __static PATH ARGV...`; the strings stay where they are.
    ///
    /// # Safety
    /// `argv` is null or a NULL-terminated vector of strings that outlives the detour, as `path` does.
    unsafe fn new(command: &'static CStr, path: *const c_char, argv: Strings) -> Option<Detour> {
        // SAFETY: the walk stops at the NULL entry.
        let entry =
            |i: usize| unsafe { if argv.is_null() { None } else { (*argv.add(i)).as_ref() } };
        let len = (0..).map_while(entry).count();
        let pages = environment::Pages::new((len + 4) * size_of::<usize>())?;
        let head = [command.as_ptr(), environment::STATIC_SUBCOMMAND.as_ptr(), path];
        let own = (0..len).filter_map(entry).map(ptr::from_ref);
        for (i, string) in head.into_iter().chain(own).enumerate() {
            // SAFETY: the pages have room for all of them and the NULL that is there already.
            unsafe { *pages.as_mut_ptr::<*const c_char>().add(i) = string };
        }
        Some(Detour { path: command, argv: pages })
    }
}

/// Looks at what is about to run. A program that cannot load us would die at its first stopped call, so it
/// goes through the `soloring` command; without one, a line on standard error says what will happen.
///
/// # Safety
/// `path` and `argv` are as for `execve`.
unsafe fn detour(path: *const c_char, argv: Strings) -> Option<Detour> {
    if path.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let name = unsafe { CStr::from_ptr(path) };
    match target::examine(name) {
        Err(refusal @ (Refusal::Static | Refusal::OtherLoader)) => {
            if let Some(command) = environment::command() {
                // SAFETY: as the caller promises.
                return unsafe { Detour::new(command, path, argv) };
            }
            let name = name.to_str().unwrap_or("program");
            raw::stderr(&["soloring: ", name, " ", refusal.reason(), "\n"]);
            None
        }
        _ => None,
    }
}

/// The same for a name that is looked up in PATH; `run` gets what to execute instead, or nothing.
///
/// # Safety
/// As for `execvp`.
unsafe fn detour_on_path<T>(
    file: *const c_char,
    argv: Strings,
    run: impl FnOnce(Option<Detour>) -> T,
) -> T {
    if file.is_null() {
        return run(None);
    }
    // The path that is found lives as long as the closure runs, so the call is made inside it.
    let mut run = Some(run);
    let mut go = |detour| run.take().expect("called once")(detour);
    // SAFETY: as the caller promises; PATH is a NUL-terminated string or null.
    let found = unsafe {
        target::on_path(CStr::from_ptr(file), libc::getenv(c"PATH".as_ptr()), |path| {
            go(detour(path.as_ptr(), argv))
        })
    };
    match found {
        Some(result) => result,
        None => go(None),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the program's own strings and vectors.
    let (environment, detour) = unsafe { (environment::complete(envp), detour(path, argv)) };
    // SAFETY: as this function, or a supervising command; with a completed environment.
    unsafe {
        match &detour {
            Some(d) => really_execute(d.path.as_ptr(), d.argv(), &environment),
            None => really_execute(path, argv, &environment),
        }
    }
}

/// # Safety
/// As for `execve`.
unsafe fn really_execute(
    path: *const c_char,
    argv: Strings,
    environment: &environment::Environment,
) -> c_int {
    stats::before_exec();
    match next!(c"execve" as fn(*const c_char, Strings, Strings) -> c_int) {
        // SAFETY: as the caller promises.
        Some(real) => unsafe { real(path, argv, environment.as_ptr()) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as this function.
    unsafe { execve(path, argv, current()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the program's own strings and vectors.
    let environment = unsafe { environment::complete(envp) };
    let run = |detour: Option<Detour>| match (
        detour,
        next!(c"execvpe" as fn(*const c_char, Strings, Strings) -> c_int),
    ) {
        // SAFETY: the supervising command, with a completed environment.
        (Some(d), _) => unsafe { really_execute(d.path.as_ptr(), d.argv(), &environment) },
        (None, Some(real)) => {
            stats::before_exec();
            // SAFETY: as this function, with a completed environment.
            unsafe { real(file, argv, environment.as_ptr()) }
        }
        (None, None) => missing(),
    };
    // SAFETY: as this function.
    unsafe { detour_on_path(file, argv, run) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as this function.
    unsafe { execvpe(file, argv, current()) }
}

/// Executes the supervising command where what lies at `place` cannot load us.
///
/// # Safety
/// `argv` is as for `execve`.
unsafe fn detour_at(
    place: Option<execfd::Place>,
    argv: Strings,
    environment: &environment::Environment,
) -> Option<c_int> {
    let place = place?;
    // SAFETY: as the caller promises; the path lives across the call.
    let detour = unsafe { detour(place.as_c_str().as_ptr(), argv) }?;
    // SAFETY: the supervising command and its arguments.
    Some(unsafe { really_execute(detour.path.as_ptr(), detour.argv(), environment) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: the program's own vector.
    let environment = unsafe { environment::complete(envp) };
    // SAFETY: as this function.
    if let Some(ret) = unsafe { detour_at(execfd::of_descriptor(fd), argv, &environment) } {
        return ret;
    }
    stats::before_exec();
    match next!(c"fexecve" as fn(c_int, Strings, Strings) -> c_int) {
        // SAFETY: as this function, with a completed environment.
        Some(real) => unsafe { real(fd, argv, environment.as_ptr()) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn execveat(
    dir: c_int,
    path: *const c_char,
    argv: Strings,
    envp: Strings,
    flags: c_int,
) -> c_int {
    // SAFETY: the program's own vector.
    let environment = unsafe { environment::complete(envp) };
    // SAFETY: the program's own string, null or NUL-terminated.
    let place = unsafe { path.as_ref().map(|p| CStr::from_ptr(p)) }
        .and_then(|path| execfd::of_execveat(dir, path, flags));
    // SAFETY: as this function.
    if let Some(ret) = unsafe { detour_at(place, argv, &environment) } {
        return ret;
    }
    stats::before_exec();
    match next!(c"execveat" as fn(c_int, *const c_char, Strings, Strings, c_int) -> c_int) {
        // SAFETY: as this function, with a completed environment.
        Some(real) => unsafe { real(dir, path, argv, environment.as_ptr(), flags) },
        None => missing(),
    }
}

// int execl(const char *path, const char *arg0, ..., NULL): the five registers after the first are pushed
// right below the stack arguments, which makes one vector of all of them. The return address moves
// below the vector and comes back at the end. Naked, because Rust has no variadic definitions; the
// parameters are not spelled out for the same reason.
macro_rules! variadic_exec {
    ($($name:ident => $body:ident;)*) => {$(
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            std::arch::naked_asm!(
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "push rbp",
                "mov rbp, rsp",
                "and rsp, -16",
                "call {body}",
                "mov rsp, rbp",
                "pop rbp",
                "pop rcx",
                "add rsp, 40",
                "push rcx",
                "ret",
                body = sym $body,
            )
        }
    )*};
}
variadic_exec! {
    execl => execl_vector;
    execlp => execlp_vector;
    execle => execle_vector;
}

unsafe extern "C" fn execl_vector(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the vector lives in the caller's frame for the call's duration.
    unsafe { execve(path, argv, current()) }
}

unsafe extern "C" fn execlp_vector(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above.
    unsafe { execvpe(file, argv, current()) }
}

unsafe extern "C" fn execle_vector(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above; the environment follows the vector's NULL.
    unsafe {
        let mut end = argv;
        while !(*end).is_null() {
            end = end.add(1);
        }
        execve(path, argv, *end.add(1) as Strings)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attr: *const posix_spawnattr_t,
    argv: Strings,
    envp: Strings,
) -> c_int {
    // SAFETY: the program's own strings and vectors.
    let (environment, detour) = unsafe { (environment::complete(envp), detour(path, argv)) };
    let (path, argv) = match &detour {
        Some(d) => (d.path.as_ptr(), d.argv()),
        None => (path, argv),
    };
    match next!(
        c"posix_spawn"
            as fn(
                *mut pid_t,
                *const c_char,
                *const posix_spawn_file_actions_t,
                *const posix_spawnattr_t,
                Strings,
                Strings,
            ) -> c_int
    ) {
        // SAFETY: as this function, with a completed environment.
        Some(real) => unsafe { real(pid, path, actions, attr, argv, environment.as_ptr()) },
        None => libc::ENOSYS,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attr: *const posix_spawnattr_t,
    argv: Strings,
    envp: Strings,
) -> c_int {
    // SAFETY: the program's own strings and vectors.
    let environment = unsafe { environment::complete(envp) };
    let run = |detour: Option<Detour>| {
        let (file, argv) = match &detour {
            Some(d) => (d.path.as_ptr(), d.argv()),
            None => (file, argv),
        };
        match next!(
            c"posix_spawnp"
                as fn(
                    *mut pid_t,
                    *const c_char,
                    *const posix_spawn_file_actions_t,
                    *const posix_spawnattr_t,
                    Strings,
                    Strings,
                ) -> c_int
        ) {
            // SAFETY: as this function, with a completed environment.
            Some(real) => unsafe { real(pid, file, actions, attr, argv, environment.as_ptr()) },
            None => libc::ENOSYS,
        }
    };
    // SAFETY: as this function.
    unsafe { detour_on_path(file, argv, run) }
}

/// The functions below execute a shell with the process's own environment from inside the C library, so
/// what is missing is put into the process's own environment first.
fn complete_own() {
    // SAFETY: the current vector; entries set here are copies.
    unsafe {
        let environment = environment::complete(current());
        if environment.as_ptr() == current() {
            return;
        }
        let mut at = environment.as_ptr();
        while let Some(entry) = (*at).as_ref() {
            let bytes = CStr::from_ptr(entry).to_bytes();
            if bytes.starts_with(b"LD_PRELOAD=") || bytes.starts_with(b"SOLORING_") {
                libc::putenv(libc::strdup(entry));
            }
            at = at.add(1);
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn system(command: *const c_char) -> c_int {
    complete_own();
    match next!(c"system" as fn(*const c_char) -> c_int) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(command) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE {
    complete_own();
    match next!(c"popen" as fn(*const c_char, *const c_char) -> *mut FILE) {
        // SAFETY: as this function.
        Some(real) => unsafe { real(command, mode) },
        None => std::ptr::null_mut(),
    }
}

/// Ends without the C library's exit functions, so the counts are printed here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: c_int) -> ! {
    stats::at_exit();
    loop {
        // SAFETY: does not return.
        unsafe { raw::any(libc::SYS_exit_group as usize, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// As `_exit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: c_int) -> ! {
    // SAFETY: as this function.
    unsafe { _exit(status) }
}
