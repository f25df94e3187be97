//! The permission matrix is what the checked-in table says: our column everywhere, the kernel's on 6.18.

use soloring_abi_tests::matrix::{Row, parse};
use std::process::{Command, Stdio};

const TABLE: &str = include_str!("../data/matrix.tsv");

fn is_linux_6_18() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.starts_with("6.18")
}

#[test]
fn the_table_is_what_the_rings_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_matrix"))
        .stderr(Stdio::inherit())
        .output()
        .expect("the matrix program starts");
    let now = parse(&String::from_utf8_lossy(&output.stdout));
    let table = parse(TABLE);
    let names = |rows: &[Row]| -> Vec<[String; 3]> {
        rows.iter().map(|r| [r.flags.clone(), r.caller.clone(), r.action.clone()]).collect()
    };
    assert_eq!(names(&table), names(&now), "the table's cells are not the program's: make it anew");
    let mut wrong = Vec::new();
    for (said, is) in table.iter().zip(&now) {
        let kernel_changed = is_linux_6_18() && said.kernel != is.kernel;
        if said.ours != is.ours || kernel_changed {
            wrong.push(format!("table: {}\n  now: {}", said.line(), is.line()));
        }
    }
    assert!(wrong.is_empty(), "{} cell(s) changed:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_difference_says_why() {
    let rows = parse(TABLE);
    assert!(rows.len() > 800, "{} cells", rows.len());
    let bare: Vec<String> =
        rows.iter().filter(|r| r.kernel != r.ours && r.note.is_empty()).map(Row::line).collect();
    assert!(bare.is_empty(), "differences without a reason:\n{}", bare.join("\n"));
    assert!(rows.iter().all(|r| r.kernel != "hang" && r.ours != "hang"), "a cell hangs");
}
