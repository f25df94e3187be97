//! Files, echoes and datagrams on monoio.

use monoio::fs::{File, OpenOptions};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::udp::UdpSocket;
use monoio::net::{TcpListener, TcpStream};
use runtimes::*;
use std::net::SocketAddr;

fn main() {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap().block_on(
        async {
            let files = files().await;
            let echoed = echoes().await;
            let datagrams = datagrams().await;
            finish(files, echoed, datagrams);
        },
    );
}

async fn files() -> Sum {
    let directory = directory();
    let tasks: Vec<_> = (0..FILES)
        .map(|file| {
            let path = directory.join(format!("m{file}"));
            monoio::spawn(async move {
                let mut sum = Sum::default();
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true);
                let out = options.open(&path).await.unwrap();
                for chunk in (0..CHUNKS).rev() {
                    let at = (chunk * CHUNK) as u64;
                    out.write_all_at(content(file, chunk), at).await.0.unwrap();
                }
                out.sync_all().await.unwrap();
                out.close().await.unwrap();
                let back = File::open(&path).await.unwrap();
                for chunk in 0..CHUNKS {
                    let (n, buffer) =
                        back.read_exact_at(vec![0; CHUNK], (chunk * CHUNK) as u64).await;
                    n.unwrap();
                    assert_eq!(buffer, content(file, chunk));
                    sum.add(&buffer);
                }
                back.close().await.unwrap();
                std::fs::remove_file(&path).unwrap();
                sum
            })
        })
        .collect();
    joined(tasks).await
}

async fn joined(tasks: Vec<monoio::task::JoinHandle<Sum>>) -> Sum {
    let mut all = Sum::default();
    for task in tasks {
        all.join(task.await);
    }
    all
}

async fn echoes() -> Sum {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = monoio::spawn(async move {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await.unwrap();
            monoio::spawn(echo(stream));
        }
        assert!(monoio::time::timeout(PATIENCE, listener.accept()).await.is_err());
        Sum::default()
    });
    let clients = (0..CONNECTIONS).map(|c| monoio::spawn(client(address, c)));
    let sum = joined(clients.chain([server]).collect()).await;
    let refused = TcpStream::connect(address).await;
    assert_eq!(refused.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
    sum
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 4096];
    loop {
        let (n, back) = stream.read(buffer).await;
        let n = n.unwrap();
        if n == 0 {
            break;
        }
        stream.write_all(back[..n].to_vec()).await.0.unwrap();
        buffer = back;
    }
}

async fn client(address: SocketAddr, connection: usize) -> Sum {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut read, mut write) = stream.into_split();
    let sender = monoio::spawn(async move {
        for round in 0..ROUNDS {
            write.write_all(message(connection, round)).await.0.unwrap();
        }
        write.shutdown().await.unwrap();
        Sum::default()
    });
    let mut sum = Sum::default();
    let mut got = Vec::new();
    for round in 0..ROUNDS {
        let expected = message(connection, round);
        while got.len() < expected.len() {
            let (n, part) = read.read(vec![0; 16 << 10]).await;
            let n = n.unwrap();
            assert_ne!(n, 0);
            got.extend_from_slice(&part[..n]);
        }
        let rest = got.split_off(expected.len());
        assert!(got == expected);
        sum.add(&got);
        got = rest;
    }
    sender.await;
    assert_eq!(read.read(vec![0; 8]).await.0.unwrap(), 0);
    sum
}

async fn datagrams() -> Sum {
    let any = "127.0.0.1:0";
    let (one, other) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    let to = other.local_addr().unwrap();
    let mut sum = Sum::default();
    for i in 0..DATAGRAMS {
        let sent = content(i, 0)[..1 + i * 7].to_vec();
        assert_eq!(one.send_to(sent.clone(), to).await.0.unwrap(), sent.len());
        let (got, buffer) = other.recv_from(vec![0; 4096]).await;
        let (n, from) = got.unwrap();
        assert_eq!((&buffer[..n], from), (&sent[..], one.local_addr().unwrap()));
        sum.add(&buffer[..n]);
    }
    assert!(monoio::time::timeout(PATIENCE, other.recv_from(vec![0; 8])).await.is_err());
    sum
}
