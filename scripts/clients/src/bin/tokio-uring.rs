//! Files, echoes and datagrams on tokio-uring.

use runtimes::*;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio_uring::fs::{self, File};
use tokio_uring::net::{TcpListener, TcpStream, UdpSocket};

fn main() {
    tokio_uring::start(async {
        let files = files().await;
        let echoed = echoes().await;
        let datagrams = datagrams().await;
        finish(files, echoed, datagrams);
    });
}

async fn files() -> Sum {
    let directory = directory();
    let tasks: Vec<_> = (0..FILES)
        .map(|file| {
            let (path, renamed) =
                (directory.join(format!("t{file}")), directory.join(format!("r{file}")));
            tokio_uring::spawn(async move {
                let mut sum = Sum::default();
                let out = File::create(&path).await.unwrap();
                for chunk in (0..CHUNKS).rev() {
                    let at = (chunk * CHUNK) as u64;
                    out.write_all_at(content(file, chunk), at).await.0.unwrap();
                }
                out.sync_all().await.unwrap();
                out.close().await.unwrap();
                fs::rename(&path, &renamed).await.unwrap();
                let back = File::open(&renamed).await.unwrap();
                for chunk in 0..CHUNKS {
                    let at = (chunk * CHUNK) as u64;
                    let (n, buffer) = back.read_exact_at(vec![0; CHUNK], at).await;
                    n.unwrap();
                    assert_eq!(buffer, content(file, chunk));
                    sum.add(&buffer);
                }
                let (n, _) = back.read_at(vec![0; 8], (CHUNKS * CHUNK) as u64).await;
                assert_eq!(n.unwrap(), 0);
                back.close().await.unwrap();
                fs::remove_file(&renamed).await.unwrap();
                assert!(File::open(&renamed).await.is_err());
                sum
            })
        })
        .collect();
    joined(tasks).await
}

async fn joined(tasks: Vec<tokio::task::JoinHandle<Sum>>) -> Sum {
    let mut all = Sum::default();
    for task in tasks {
        all.join(task.await.unwrap());
    }
    all
}

async fn echoes() -> Sum {
    let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio_uring::spawn(async move {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_uring::spawn(echo(stream));
        }
        // Nobody comes any more: the accept is cancelled.
        assert!(tokio::time::timeout(PATIENCE, listener.accept()).await.is_err());
        Sum::default()
    });
    let clients = (0..CONNECTIONS).map(|c| tokio_uring::spawn(client(address, c)));
    joined(clients.chain([server]).collect()).await
}

async fn echo(stream: TcpStream) {
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
    let mut sum = Sum::default();
    let stream = Rc::new(TcpStream::connect(address).await.unwrap());
    for round in 0..ROUNDS {
        let message = message(connection, round);
        let sender = tokio_uring::spawn({
            let (stream, message) = (stream.clone(), message.clone());
            async move { stream.write_all(message).await.0.unwrap() }
        });
        let mut got = Vec::new();
        while got.len() < message.len() {
            let (n, part) = stream.read(vec![0; 16 << 10]).await;
            got.extend_from_slice(&part[..n.unwrap()]);
        }
        sender.await.unwrap();
        assert!(got == message);
        sum.add(&got);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(vec![0; 8]).await.0.unwrap(), 0);
    sum
}

async fn datagrams() -> Sum {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (one, other) = (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
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
    let wait = tokio::time::timeout(PATIENCE, other.recv_from(vec![0; 8])).await;
    assert!(wait.is_err());
    sum
}
