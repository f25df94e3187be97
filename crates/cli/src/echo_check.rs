//! A client for any TCP echo server: many connections at once, every byte compared. Uses plain calls.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::out;

/// Longer than any echo takes: only a server that hangs reaches it.
const LIMIT: Duration = Duration::from_secs(20);
/// Prime, so that lengths and positions never fall into step with a buffer's size.
const LONGEST: u64 = 10_007;

#[derive(clap::Args)]
pub struct Args {
    address: SocketAddr,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    #[arg(long, default_value_t = 200)]
    messages: u32,
}

/// Waits for the server to listen, then prints how much came back unchanged.
pub fn main(args: Args) -> Result<ExitCode> {
    let begin = Instant::now();
    while let Err(error) = TcpStream::connect(args.address) {
        if begin.elapsed() > LIMIT {
            return Err(error).with_context(|| format!("no server on {}", args.address));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let bytes = thread::scope(|scope| {
        let clients: Vec<_> = (0..args.connections)
            .map(|number| scope.spawn(move || talk(args.address, number, args.messages)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
            .sum::<Result<u64>>()
    })?;
    out::line(format!(
        "{} connections, {} messages each, {bytes} bytes unchanged",
        args.connections, args.messages
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn talk(address: SocketAddr, number: u32, messages: u32) -> Result<u64> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let mut total = 0;
    for message in 0..messages {
        let seed =
            (u64::from(number) << 32 | u64::from(message)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let len = 1 + (seed >> 33) % LONGEST;
        let sent: Vec<u8> =
            (0..len).map(|at| (seed.rotate_left((at % 61) as u32) ^ at) as u8).collect();
        stream.write_all(&sent).context("send")?;
        let mut got = vec![0; sent.len()];
        stream.read_exact(&mut got).context("receive")?;
        if got != sent {
            bail!("connection {number}, message {message} of {len} bytes came back changed");
        }
        total += len;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut rest = [0; 1];
    if stream.read(&mut rest).context("end of the stream")? != 0 {
        bail!("connection {number}: the server sent more than it was sent");
    }
    Ok(total)
}
