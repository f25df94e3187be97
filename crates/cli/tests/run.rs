//! `soloring run` as a user sees it: what passes through, what is refused and how, and what static children get.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SOLORING: &str = env!("CARGO_BIN_EXE_soloring");

fn run(args: &[impl AsRef<OsStr>]) -> Output {
    command(args).output().unwrap()
}

fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(SOLORING);
    command.arg("run").args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Nothing on standard output, one line on standard error that starts with our name.
#[track_caller]
fn refused(output: &Output, status: i32, words: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(output.stdout.is_empty());
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("soloring: ") && error.contains(words), "{error}");
}

fn compiled(name: &str, output: &str, flags: &[&str]) -> PathBuf {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../preload/tests/programs");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(output);
    let built = Command::new("cc")
        .args(["-O2", "-Wno-unused-function", "-o"])
        .arg(&path)
        .arg(programs.join(format!("{name}.c")))
        .args(flags)
        .args(["-ldl", "-pthread"])
        .output()
        .expect("a C compiler");
    assert!(built.status.success(), "{}", text(&built.stderr));
    path
}

fn scratch(name: &str, mode: u32, content: &[u8]) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn streams_and_status_pass_through() {
    let script = "cat; echo out; echo err >&2; exit 7";
    let mut child = command(&["--deny-kernel", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("in\nout\n".into(), "err\n".into()));
}

#[test]
fn it_becomes_the_program() {
    let child = command(&["--", "sh", "-c", "echo $$; kill -TERM $$"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).trim(), pid.to_string());
    assert_eq!(output.status.signal(), Some(libc::SIGTERM));
}

#[test]
fn arguments_arrive_as_they_are() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let args = ["--", "--", "-x", "", "a b", "--stats"].map(OsStr::new);
    let all: Vec<&OsStr> = ["--", "sh", "-c", r#"printf '<%s>' "$@""#, "sh"]
        .map(OsStr::new)
        .into_iter()
        .chain(args)
        .chain([odd])
        .collect();
    assert_eq!(run(&all).stdout, b"<--><--><-x><><a b><--stats><\xff\xfe>");
    let bare = run(&["sh", "-c", r#"printf '<%s>' "$@""#, "sh", "--", "-y"]);
    assert_eq!(bare.stdout, b"<--><-y>");
}

#[test]
fn a_broken_pipe_ends_the_program_as_usual() {
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{SOLORING} run -- sh -c 'yes; echo $? >&2' | head -1"))
        .output()
        .unwrap();
    // 141: `yes` died of SIGPIPE, which Rust programs otherwise hand on as ignored.
    assert_eq!(text(&status.stderr).trim(), "141");
}

#[test]
fn what_cannot_run_is_refused_in_one_line() {
    refused(&run(&["--", "/nonexistent/program"]), 127, "no such file");
    refused(&run(&["--", "no-such-program-anywhere"]), 127, "PATH");
    refused(&run(&["--", "/etc"]), 126, "not an executable file");
    refused(&run(&[scratch("plain", 0o644, b"x").as_os_str()]), 126, "not an executable file");
    refused(&run(&[scratch("text", 0o755, b"x\n").as_os_str()]), 126, "neither an ELF program");
    let mut foreign = std::fs::read("/bin/true").unwrap();
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    refused(&run(&[scratch("foreign", 0o755, &foreign).as_os_str()]), 126, "architecture");
    let fixed = compiled("calls", "calls-static", &["-static", "-Wno-error", "-w"]);
    refused(&run(&[fixed.as_os_str()]), 126, "statically linked");
    let script = scratch("script", 0o755, b"#!/nonexistent/interpreter\n");
    refused(&run(&[script.as_os_str()]), 127, "interpreter that its first line names");
    refused(&run(&["--", ""]), 127, "name is empty");
    assert_eq!(run(&["--no-such-option", "--", "true"]).status.code(), Some(2));
    refused(&run(&[] as &[&str]), 2, "not provided: <PROGRAM>");
}

/// Under a hard limit as small as programs meet, rings work while there are descriptors, and then set-up says
/// that there are none: never a ring that cannot be mapped.
#[test]
fn small_descriptor_limits() {
    let calls = compiled("calls", "calls-few-files", &[]);
    for limit in [16, 32, 64, 256] {
        let script = format!("ulimit -n {limit} && exec {SOLORING} run --deny-kernel -- \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(&calls)
            .arg("until-full")
            .output()
            .unwrap();
        assert!(output.status.success(), "{limit}: {}", text(&output.stderr));
        let rings: usize = text(&output.stdout).trim().parse().unwrap();
        assert!(rings >= limit / 16 && rings < limit, "{limit}: {rings}");
    }
}

/// The limit on descriptors that the program has is the one that `run` was started with, and no other.
#[test]
fn the_descriptor_limit_stays_the_programs() {
    let ask = "ulimit -Sn; ulimit -Hn";
    let script =
        format!("ulimit -Sn 200; {ask}; exec {SOLORING} run --deny-kernel -- sh -c '{ask}'");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = text(&output.stdout);
    let limits: Vec<_> = said.lines().collect();
    assert!(limits.len() == 4 && limits[..2] == limits[2..], "{said}{}", text(&output.stderr));
    assert_eq!(limits[0], "200");
}

#[test]
fn a_missing_shared_object_is_one_line() {
    let output =
        command(&["--", "true"]).env("SOLORING_PRELOAD", "/nonexistent.so").output().unwrap();
    refused(&output, 126, "SOLORING_PRELOAD");
}

/// The installed folder works wherever it is moved to; the command alone says what it misses.
#[test]
fn an_installed_command_runs_programs() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install.sh");
    let built = Path::new(SOLORING).parent().unwrap();
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-install", std::process::id()));
    let (first, moved) = (at.join("first"), at.join("moved"));
    let install = |args: &[&Path]| Command::new(&script).args(args).output().unwrap();
    assert_eq!(install(&[]).status.code(), Some(2));
    let output = install(&[&first, built]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    std::fs::rename(&first, &moved).unwrap();
    let calls = compiled("calls", "calls-installed", &[]);
    let run = |command: &Path| {
        let args = ["run", "--deny-kernel", "--stats", "--"];
        Command::new(command).args(args).arg(&calls).arg("until-full").output().unwrap()
    };
    let output = run(&moved.join("bin/soloring"));
    let error = text(&output.stderr);
    assert!(output.status.success() && error.contains("soloring:"), "{error}");
    let alone = at.join("soloring");
    std::fs::copy(SOLORING, &alone).unwrap();
    refused(&run(&alone), 126, "scripts/install.sh");
    std::fs::remove_dir_all(&at).unwrap();
}

/// The number that stands before `what` in the line of counts.
fn count(line: &str, what: &str) -> u64 {
    let before = line.split(&format!(" {what}")).next().filter(|before| before.len() < line.len());
    let word = before.and_then(|before| before.rsplit([' ', '(']).next());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {what} in: {line}"))
}

#[test]
fn rings_work_where_the_kernel_denies_them() {
    let calls = compiled("calls", "calls", &[]);
    let output =
        command(&["--deny-kernel", "--stats", "--"]).arg(&calls).arg("roads").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = text(&output.stderr);
    assert!(line.contains("10009 operations"), "{line}");
    let counted: u64 = ["elided by its owner", "taken by its owner", "by others"]
        .map(|what| count(&line, what))
        .iter()
        .sum();
    // One acquisition a call at least, though a call may have brought many operations.
    assert!(counted > 0, "{line}");
    for what in ["revocations", "us waited"] {
        count(&line, what);
    }
    // Children that had no ring say nothing.
    let output = run(&["--stats", "--", "bash", "-c", "(true); (true); echo $(echo hi)"]);
    let said = text(&output.stderr);
    assert_eq!(said.lines().filter(|line| line.contains(" 0 operations")).count(), 1, "{said}");
    // Nor do children that have inherited one and left it alone: what their parent did is not theirs.
    let processes = compiled("processes", "processes-stats", &[]);
    let output = command(&["--stats", "--"]).arg(&processes).arg("idle-child").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
    let mutex = command(&["--stats", "--"])
        .arg(&calls)
        .arg("roads")
        .env("SOLORING_LOCK", "mutex")
        .output()
        .unwrap();
    let line = text(&mutex.stderr);
    assert!(line.contains("ring lock, mutex (forced): 0 elided"), "{line}");
    // A ring that the program sees denied, to show that the filter is the container's.
    let denied = command(&["--deny-kernel", "--if-needed", "--"]).arg(&calls).arg("roads").output();
    assert!(denied.unwrap().status.success(), "needed, because the kernel's ring is denied");
}

#[test]
fn if_needed_steps_aside() {
    let script = "echo ${LD_PRELOAD-none} ${SOLORING_PRELOAD-none}";
    let output = run(&["--if-needed", "--", "sh", "-c", script]);
    let kernel_works = run(&["--if-needed", "--", "true"]).status.success()
        && Path::new("/proc/sys/kernel/io_uring_disabled").exists()
        && std::fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t0");
    if kernel_works {
        assert_eq!(text(&output.stdout).trim(), "none none");
    }
    let denied = run(&["--deny-kernel", "--if-needed", "--", "sh", "-c", script]);
    assert!(text(&denied.stdout).contains("libsoloring_preload.so"));
}

#[test]
fn other_preloads_stay() {
    let output = command(&["--", "sh", "-c", "echo $LD_PRELOAD"])
        .env("LD_PRELOAD", "libm.so.6")
        .output()
        .unwrap();
    let list = text(&output.stdout);
    assert!(
        list.contains("libsoloring_preload.so:") && list.trim().ends_with("libm.so.6"),
        "{list}"
    );
}

#[test]
fn statistics_go_to_a_file() {
    let calls = compiled("calls", "calls-stats", &[]);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.json", std::process::id()));
    let script = format!("{0} roads & {0} errors; wait", calls.display());
    let output =
        command(&["--", "bash", "-c", &script]).env("SOLORING_STATS_FILE", &file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty());
    let report = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let rows: Vec<serde_json::Value> =
        report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ops: Vec<u64> = rows.iter().map(|r| r["per_op"]["NOP"].as_u64().unwrap_or(0)).collect();
    assert!(ops.contains(&10009) && ops.contains(&1), "{report}");
}

#[test]
fn static_children_are_refused_not_killed() {
    let dynamic = compiled("processes", "processes", &[]);
    let fixed = compiled("processes", "processes-static", &["-static", "-w"]);
    let output = command(&["--deny-kernel", "--"])
        .arg(&dynamic)
        .arg("static-child")
        .arg(&fixed)
        .output()
        .unwrap();
    assert!(output.status.success(), "{} {}", output.status, text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

/// The loader that this machine's programs name.
fn loader() -> PathBuf {
    let shell = std::fs::read("/bin/sh").unwrap();
    let mark = b"/lib64/ld-";
    let start = shell.windows(mark.len()).position(|w| w == mark).expect("a dynamic program");
    let len = shell[start..].iter().position(|b| *b == 0).unwrap();
    PathBuf::from(OsStr::from_bytes(&shell[start..start + len]))
}

/// A loader called as musl's is, which would fail on our object; here it is glibc's, and tells what it was asked to load.
#[test]
fn children_with_another_loader_start_and_get_no_ring() {
    let dir = tempfile::tempdir().unwrap();
    let musl = dir.path().join("ld-musl-x86_64.so.1");
    std::os::unix::fs::symlink(loader(), &musl).unwrap();
    let link = format!("-Wl,--dynamic-linker={}", musl.display());
    let program = compiled("foreign", "foreign", &[&link]);
    refused(&run(&[program.as_os_str()]), 126, "another C library");
    for (others, expected) in [("", "preload: none\n"), ("libm.so.6", "preload: libm.so.6\n")] {
        let output = command(&["--deny-kernel", "--"])
            .args(["sh", "-c", "\"$0\"; echo status $?"])
            .arg(&program)
            .env("LD_PRELOAD", others)
            .output()
            .unwrap();
        assert_eq!(
            text(&output.stdout),
            format!("{expected}no ring\nstatus 0\n"),
            "{}",
            text(&output.stderr)
        );
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}
