//! The command line from outside: one line for what is wrong, and quiet when nobody reads.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn soloring(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_soloring")).args(args).output().unwrap()
}

#[test]
fn a_wrong_command_line_gets_one_line() {
    let wrong: [&[&str]; 5] = [
        &["fly"],
        &["demo", "--copy-mib", "none"],
        &["demo", "--copy-mib", "0"],
        &["probe", "extra"],
        &["bench", "--json"],
    ];
    for args in wrong {
        let output = soloring(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.starts_with("soloring: "), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_gets_one_line_before_the_work() {
    let output = soloring(&["bench", "--json", "/nonexistent/folder/results.json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/nonexistent/folder/results.json"), "{said}");
}

#[test]
fn a_short_bench_has_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("results.json");
    let output = Command::new(env!("CARGO_BIN_EXE_soloring"))
        .args(["bench", "--quick", "--json"])
        .arg(&json)
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    let value: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let is_positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    let rows = list(&value["rows"]);
    assert_eq!(rows.len(), 8);
    for row in &rows {
        for name in ["ours SD", "ours", "run libc SD", "run inline SD", "plain calls"] {
            assert!(is_positive(&row["variants"][name]["ns_per_operation"]), "{name}: {row}");
        }
        assert!(is_positive(&row["times_as_fast"]["biased / mutex"]), "{row}");
    }
    let (alone, busy) = (list(&value["lock"]["alone"]), list(&value["lock"]["busy"]));
    assert_eq!((alone.len(), busy.len()), (5, 4), "{}", value["lock"]);
    for row in &busy {
        // On a busy machine the two threads may never have run at the same time.
        let met = row["visits"] != 0;
        assert_eq!(is_positive(&row["foreign_p50_ns"]), met, "{row}");
        assert!(is_positive(&row["owner_per_us"]), "{row}");
    }
    // A mutex needs no fence.
    assert_eq!(busy[2]["heavy_fences"], 0, "{}", busy[2]);
    let memory = list(&value["memory"]);
    assert_eq!(memory.len(), 8, "four kinds on two rings");
    for row in &memory {
        let number = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("no {name}: {row}"));
        let (requests, grown) =
            (number("requests"), number("bytes_after") - number("bytes_before"));
        if row["what"].as_str().is_some_and(|what| what.contains("in flight")) {
            // What is promised, and one huge page.
            assert!(grown > 0 && grown <= 512 * requests + (2 << 20), "{row}");
        } else {
            // Less than a byte each, and nothing is left open.
            assert!(
                requests >= 100_000 && grown < requests / 2 && number("descriptors") == 0,
                "{row}"
            );
        }
    }
    // The results alone are left.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn help_and_version_are_not_errors() {
    for args in [["--help"], ["--version"]] {
        let output = soloring(&args);
        assert!(output.status.success(), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_soloring"))
        .args(["probe"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(output.status.code(), Some(128 + 13), "{said}");
}

#[test]
fn probe_says_of_the_kernel_what_the_kernel_says() {
    let output = soloring(&["probe", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in ["features", "setup_flags", "enter_flags", "operations", "register"] {
        assert!(value[section].as_array().is_some_and(|list| !list.is_empty()), "{section}");
    }
    // The `io-uring` crate asks for itself.
    match io_uring::IoUring::new(4) {
        Err(error) => {
            assert_eq!(value["kernel"]["available"], false);
            let errno = syscalls::Errno::new(error.raw_os_error().unwrap());
            assert_eq!(value["kernel"]["errno"].as_str(), errno.name());
        }
        Ok(ring) => {
            assert_eq!(value["kernel"]["available"], true);
            let mut probe = io_uring::Probe::new();
            ring.submitter().register_probe(&mut probe).unwrap();
            let list = value["operations"].as_array().unwrap();
            for (code, line) in list.iter().enumerate() {
                let supported = probe.is_supported(code as u8);
                assert_eq!(line["kernel"] == "yes", supported, "{line}");
            }
        }
    }
}

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_soloring"))
        .args(["demo", "--copy-mib", "4", "--connections", "20", "--round-trips", "10"])
        .args(["--timers", "50"])
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}\n{text}");
    assert!(text.contains("Operation not permitted"), "the refusal is shown: {text}");
    for part in ["file copy", "TCP echo", "timers", "SEND", "READ_FIXED", "no lock taken"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Under a small limit on descriptors the demo makes fewer connections, or says what the limit is.
#[test]
fn the_demo_fits_into_the_descriptor_limit() {
    let demo = |limit: u32| {
        let script = format!(
            "ulimit -n {limit} && exec {} demo --copy-mib 1 --round-trips 2 --timers 5",
            env!("CARGO_BIN_EXE_soloring")
        );
        Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    for (limit, connections) in [(128, "9 connections"), (256, "52 connections")] {
        let output = demo(limit);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(connections), "{limit}: {said}");
    }
    let output = demo(64);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("(ulimit -n) is 64"), "{error}");
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    // More work than can be done before the interrupt.
    let mut child = Command::new(env!("CARGO_BIN_EXE_soloring"))
        .args(["demo", "--copy-mib", "64", "--round-trips", "1000000"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The first part's line says that the client runs.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("crc32c")));
    let kill = format!("kill -INT {}", child.id());
    let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
