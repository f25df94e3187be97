//! Runs the demo's work directly, on whatever serves this process's ring: for comparing with the kernel.

use soloring_demo_client::{Options, run};

fn main() -> std::io::Result<()> {
    let options = Options {
        dir: std::env::temp_dir(),
        copy_bytes: 64 << 20,
        connections: 200,
        round_trips: 100,
        timers: 500,
    };
    run(&options, |part| {
        let ops = part.total_requests();
        println!(
            "{}: {}; {}; {ops} requests in {:.2} s",
            part.name, part.work, part.checked, part.seconds
        );
        println!("{:?}", part.requests);
        Ok(())
    })
}
