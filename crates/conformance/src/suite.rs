//! The built suite: liburing copied, configured and compiled once per crate version and compiler.
//!
//! The suite's own Makefile is not used, so that a C compiler is all it takes (its flags and rules
//! are followed); `make` is only asked two words by `configure`, and a stand-in answers where there
//! is none. A test that the compiler refuses does not stop the others: it counts as not built.

use crate::{kernel, source};
use anyhow::{Context, Result, bail};
use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

/// Raised when the way of building changes, so that a cached build is not taken for a new one.
const RECIPE: u32 = 1;

/// Preprocessor flags of the suite's Makefiles, relative to `test/` and `src/`.
const CPPFLAGS: &[&str] = &[
    "-D_GNU_SOURCE",
    "-D__SANE_USERSPACE_TYPES__",
    "-D_LARGEFILE_SOURCE",
    "-D_FILE_OFFSET_BITS=64",
    "-I../src/include",
    "-include",
    "../config-host.h",
];
const LIB_FLAGS: &[&str] = &["-O3", "-w", "-fno-stack-protector", "-DLIBURING_INTERNAL"];
const NOLIBC_FLAGS: &[&str] =
    &["-nostdlib", "-nodefaultlibs", "-ffreestanding", "-fno-builtin", "-fno-stack-protector"];
const TEST_FLAGS: &[&str] = &["-g", "-O3", "-w", "-DLIBURING_BUILD_TEST"];
const LINK_FLAGS: &[&str] = &["helpers.o", "../src/liburing.a", "-lpthread"];
/// Long-lived parts of the source tree; man pages, examples and packaging are left out.
const COPIED: &[&str] = &["configure", "Makefile.common", "liburing.spec", "src", "test"];

/// How far the build is: tests compiled, tests in all.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A built suite.
pub struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// Fetches, configures and compiles the suite below `base` unless that was done before with
    /// this compiler. Two processes that need it at once wait for each other.
    pub fn prepare(base: &Path, progress: Progress) -> Result<Suite> {
        fs::create_dir_all(base)?;
        let lock = File::create(base.join("lock"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
        let tools = Tools::find()?;
        let dir = base.join(format!("{}-{}-{:016x}", source::CRATE, source::VERSION, tools.hash()));
        let stamp = dir.join("built");
        if !stamp.exists() {
            let liburing = source::fetch(&base.join("fetch"))?;
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            fs::create_dir_all(&dir)?;
            for part in COPIED {
                copy(&liburing.join(part), &dir.join(part))
                    .with_context(|| format!("cannot copy {part} of the suite"))?;
            }
            let config = tools.configure(&dir)?;
            tools.build_library(&dir, &config)?;
            tools.build_tests(&dir, &config, progress)?;
            fs::write(stamp, "")?;
        }
        Ok(Suite { dir })
    }

    /// The executable of a test, or None when it was not built.
    pub fn executable(&self, name: &str) -> Option<PathBuf> {
        let path = self.dir.join("test").join(format!("{name}.t"));
        path.exists().then_some(path)
    }

    /// Why a test was not built, in the compiler's words.
    pub fn build_error(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join("test").join(format!("{name}.err")))
            .unwrap_or_else(|_| "no source of that name".to_owned())
    }
}

/// What `configure` found, as the text of config-host.h.
struct Config(String);

impl Config {
    fn has(&self, symbol: &str) -> bool {
        self.0.lines().any(|l| l.strip_prefix("#define ").is_some_and(|s| s.trim() == symbol))
    }
}

/// The compilers.
struct Tools {
    cc: OsString,
    cxx: OsString,
    /// What they say of themselves.
    versions: String,
}

impl Tools {
    fn find() -> Result<Tools> {
        let cc = env::var_os("CC").unwrap_or_else(|| "cc".into());
        let cxx = env::var_os("CXX").unwrap_or_else(|| "c++".into());
        let Some(version) = version_of(&cc) else {
            bail!("the liburing suite needs a C compiler: cannot run {:?} (set CC)", cc);
        };
        let cxx_version = version_of(&cxx);
        if cxx_version.is_none() {
            eprintln!("no C++ compiler ({cxx:?}; set CXX): the test sq-full-cpp is not built");
        }
        let versions = format!("{version}{}", cxx_version.unwrap_or_default());
        Ok(Tools { cc, cxx, versions })
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (RECIPE, &self.cc, &self.cxx, &self.versions, TEST_FLAGS, LIB_FLAGS).hash(&mut hasher);
        hasher.finish()
    }

    fn configure(&self, dir: &Path) -> Result<Config> {
        let log = File::create(dir.join("configure.log"))?;
        let mut command = Command::new("sh");
        command
            .arg("./configure")
            .arg(joined("--cc=", &self.cc))
            .arg(joined("--cxx=", &self.cxx))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if version_of("make".as_ref()).is_none() {
            command.env("PATH", stand_in_for_make(dir)?);
        }
        let status = command.status().context("cannot run sh")?;
        if !status.success() {
            bail!("configuring liburing failed ({status}); see {}/configure.log", dir.display());
        }
        Ok(Config(fs::read_to_string(dir.join("config-host.h"))?))
    }

    fn build_library(&self, dir: &Path, config: &Config) -> Result<()> {
        let mut sources = vec!["setup", "queue", "register", "syscall", "version"];
        let mut flags = [CPPFLAGS, LIB_FLAGS].concat();
        if config.has("CONFIG_NOLIBC") {
            sources.push("nolibc");
            flags.extend(NOLIBC_FLAGS);
        }
        let src = dir.join("src");
        for source in &sources {
            let mut command = Command::new(&self.cc);
            command.args(&flags).args(["-c", &format!("{source}.c")]);
            run_in(&src, &mut command).map_err(|e| anyhow::anyhow!("liburing: {source}.c: {e}"))?;
        }
        let mut command = Command::new("ar");
        command.args(["rcs", "liburing.a"]).args(sources.iter().map(|s| format!("{s}.o")));
        run_in(&src, &mut command).map_err(|e| anyhow::anyhow!("liburing.a: {e}"))
    }

    fn build_tests(&self, dir: &Path, config: &Config, progress: Progress) -> Result<()> {
        let test = dir.join("test");
        let mut command = Command::new(&self.cc);
        command.args(CPPFLAGS).args(TEST_FLAGS).args(["-c", "helpers.c"]);
        run_in(&test, &mut command).map_err(|e| anyhow::anyhow!("the suite's helpers.c: {e}"))?;
        let names: Vec<&str> =
            kernel::table().into_keys().filter(|n| self.builds(&test, config, n)).collect();
        let next = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        let failed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, |n| n.get()) {
                scope.spawn(|| {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(text) = self.build_test(&test, name) {
                            let written = fs::write(test.join(format!("{name}.err")), text);
                            failed.lock().expect("no panic while held").push((*name, written));
                        }
                        progress(done.fetch_add(1, Ordering::Relaxed) + 1, names.len());
                    }
                });
            }
        });
        for (name, written) in failed.into_inner().expect("no panic while held") {
            eprintln!("the compiler refused the suite's test {name}");
            written?;
        }
        Ok(())
    }

    /// Whether the suite has this test for this machine.
    fn builds(&self, test: &Path, config: &Config, name: &str) -> bool {
        match name {
            "nolibc" => config.has("CONFIG_NOLIBC"),
            "statx" => config.has("CONFIG_HAVE_STATX") || config.has("CONFIG_HAVE_GLIBC_STATX"),
            "sq-full-cpp" => config.has("CONFIG_HAVE_CXX"),
            _ => test.join(format!("{name}.c")).exists(),
        }
    }

    fn build_test(&self, test: &Path, name: &str) -> Result<(), String> {
        let c_plus_plus = test.join(format!("{name}.cc")).exists();
        let mut command = Command::new(if c_plus_plus { &self.cxx } else { &self.cc });
        command.args(CPPFLAGS).args(TEST_FLAGS);
        if c_plus_plus {
            command.arg("-std=c++11");
        }
        command.arg(format!("{name}.{}", if c_plus_plus { "cc" } else { "c" }));
        command.args(["-o", &format!("{name}.t")]).args(LINK_FLAGS);
        run_in(test, &mut command)
    }
}

/// Runs a command in a directory; its output is the error.
fn run_in(dir: &Path, command: &mut Command) -> Result<(), String> {
    let output =
        command.current_dir(dir).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn version_of(program: &std::ffi::OsStr) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn joined(prefix: &str, rest: &OsString) -> OsString {
    let mut whole = OsString::from(prefix);
    whole.push(rest);
    whole
}

/// `configure` asks make for the two halves of the version, by the last argument. Writes a script
/// that answers from liburing.spec and returns the PATH to find it by.
fn stand_in_for_make(dir: &Path) -> Result<OsString> {
    let spec = fs::read_to_string(dir.join("liburing.spec"))?;
    let version = spec
        .lines()
        .find_map(|l| l.strip_prefix("Version:"))
        .and_then(|v| v.trim().split_once('.'))
        .context("liburing.spec names no version")?;
    let bin = dir.join("stand-in");
    fs::create_dir_all(&bin)?;
    let script = bin.join("make");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\ncat >/dev/null\nfor last; do :; done\ncase $last in\n\
             *MAJOR) echo {} ;;\n*MINOR) echo {} ;;\n*) exit 2 ;;\nesac\n",
            version.0, version.1
        ),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(std::iter::once(bin).chain(env::split_paths(&path)))?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_for_make_answers_what_configure_asks() {
        let dir = env::temp_dir().join(format!("soloring-stand-in-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("liburing.spec"), "Name: liburing\nVersion: 2.15\n").unwrap();
        let path = stand_in_for_make(&dir).unwrap();
        let ask = |what: &str| {
            let output = Command::new(dir.join("stand-in/make"))
                .args(["-s", "--no-print-directory", "-f", "-", what])
                .env("PATH", &path)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(
            (ask("print-VERSION_MAJOR"), ask("print-VERSION_MINOR")),
            ("2\n".into(), "15\n".into())
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_symbol_of_the_configuration_is_matched_whole() {
        let config = Config("#define CONFIG_HAVE_STATX\n#define CONFIG_NOLIBC_X\n".into());
        assert!(config.has("CONFIG_HAVE_STATX"));
        assert!(!config.has("CONFIG_NOLIBC"));
    }
}
