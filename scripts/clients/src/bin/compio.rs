//! Files, echoes and datagrams on compio.

use compio::fs::{File, remove_file, rename};
use compio::io::{AsyncRead, AsyncReadAtExt, AsyncWriteAtExt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream, UdpSocket};
use compio::runtime::{JoinHandle, spawn};
use compio::{BufResult, time::timeout};
use runtimes::*;
use std::net::SocketAddr;

#[compio::main]
async fn main() {
    let files = files().await;
    let echoed = echoes().await;
    let datagrams = datagrams().await;
    finish(files, echoed, datagrams);
}

async fn files() -> Sum {
    let directory = directory();
    let tasks: Vec<_> = (0..FILES)
        .map(|file| {
            let (path, renamed) =
                (directory.join(format!("c{file}")), directory.join(format!("d{file}")));
            spawn(async move {
                let mut sum = Sum::default();
                let mut out = File::create(&path).await.unwrap();
                for chunk in (0..CHUNKS).rev() {
                    let at = (chunk * CHUNK) as u64;
                    out.write_all_at(content(file, chunk), at).await.0.unwrap();
                }
                out.sync_all().await.unwrap();
                assert_eq!(out.metadata().await.unwrap().len(), (CHUNKS * CHUNK) as u64);
                out.close().await.unwrap();
                rename(&path, &renamed).await.unwrap();
                let back = File::open(&renamed).await.unwrap();
                for chunk in 0..CHUNKS {
                    let at = (chunk * CHUNK) as u64;
                    let BufResult(n, buffer) =
                        back.read_exact_at(Vec::with_capacity(CHUNK), at).await;
                    n.unwrap();
                    assert_eq!(buffer, content(file, chunk));
                    sum.add(&buffer);
                }
                back.close().await.unwrap();
                remove_file(&renamed).await.unwrap();
                assert!(File::open(&renamed).await.is_err());
                sum
            })
        })
        .collect();
    joined(tasks).await
}

async fn joined(tasks: Vec<JoinHandle<Sum>>) -> Sum {
    let mut all = Sum::default();
    for task in tasks {
        all.join(task.await.unwrap());
    }
    all
}

async fn echoes() -> Sum {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(async move {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await.unwrap();
            spawn(echo(stream)).detach();
        }
        assert!(timeout(PATIENCE, listener.accept()).await.is_err());
        listener.close().await.unwrap();
        Sum::default()
    });
    let clients = (0..CONNECTIONS).map(|c| spawn(client(address, c)));
    let sum = joined(clients.chain([server]).collect()).await;
    let refused = TcpStream::connect(address).await;
    assert_eq!(refused.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
    sum
}

async fn echo(mut stream: TcpStream) {
    loop {
        let BufResult(n, buffer) = stream.read(Vec::with_capacity(4096)).await;
        if n.unwrap() == 0 {
            break;
        }
        stream.write_all(buffer).await.0.unwrap();
    }
    stream.close().await.unwrap();
}

async fn client(address: SocketAddr, connection: usize) -> Sum {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut sum = Sum::default();
    for round in 0..ROUNDS {
        let message = message(connection, round);
        let sender = spawn({
            let (mut stream, message) = (stream.clone(), message.clone());
            async move { stream.write_all(message).await.0.unwrap() }
        });
        let mut got = Vec::new();
        while got.len() < message.len() {
            let BufResult(n, part) = stream.read(Vec::with_capacity(16 << 10)).await;
            assert_ne!(n.unwrap(), 0);
            got.extend_from_slice(&part);
        }
        sender.await.unwrap();
        assert!(got == message);
        sum.add(&got);
    }
    compio::io::AsyncWrite::shutdown(&mut stream).await.unwrap();
    assert_eq!(stream.read(Vec::with_capacity(8)).await.0.unwrap(), 0);
    sum
}

async fn datagrams() -> Sum {
    let any = "127.0.0.1:0";
    let (one, other) = (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
    let to = other.local_addr().unwrap();
    let mut sum = Sum::default();
    for i in 0..DATAGRAMS {
        let sent = content(i, 0)[..1 + i * 7].to_vec();
        assert_eq!(one.send_to(sent.clone(), to).await.0.unwrap(), sent.len());
        let BufResult(got, buffer) = other.recv_from(Vec::with_capacity(4096)).await;
        let (n, from) = got.unwrap();
        assert_eq!((&buffer[..n], from), (&sent[..], one.local_addr().unwrap()));
        sum.add(&buffer[..n]);
    }
    assert!(timeout(PATIENCE, other.recv_from(Vec::with_capacity(8))).await.is_err());
    sum
}
