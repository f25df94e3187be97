//! The demo's work at a small scale, on whatever ring this process gets: normally the kernel's, which
//! says that the client itself is right.

use soloring_demo_client::{Options, open_a_ring, run};

#[test]
fn all_parts_end_well_and_leave_nothing_behind() {
    if let Err(error) = open_a_ring() {
        println!("no ring in this process: {error}");
        return;
    }
    let dir = std::env::temp_dir().join(format!("soloring-client-test-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let options = Options {
        dir: dir.clone(),
        // Not a multiple of the block size: the last block is a short one.
        copy_bytes: (4 << 20) + 4321,
        connections: 20,
        round_trips: 10,
        timers: 50,
    };
    let mut parts = Vec::new();
    let outcome = run(&options, |part| {
        parts.push(part);
        Ok(())
    });
    let left = std::fs::read_dir(&dir).unwrap().count();
    std::fs::remove_dir_all(&dir).unwrap();
    outcome.unwrap();
    assert_eq!(left, 0);
    assert_eq!(
        parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(),
        ["file copy", "TCP echo", "timers"]
    );
    // Connections and round trips: one send and at least one receive at either end.
    assert!(parts[1].total_requests() >= 20 * 10 * 4);
}
