//! Files past the page cache, echoes and datagrams on glommio, and two executors that talk.

use futures::{AsyncReadExt, AsyncWriteExt};
use glommio::io::{DmaFile, rename};
use glommio::net::{TcpListener, TcpStream, UdpSocket};
use glommio::timer::timeout;
use glommio::{GlommioError, LocalExecutorBuilder, Placement, Task, spawn_local};
use runtimes::*;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;

fn main() {
    let (tell, told) = std::sync::mpsc::channel();
    let run = LocalExecutorBuilder::new(Placement::Unbound)
        .spawn(|| async move {
            let files = files().await;
            let datagrams = datagrams().await;
            serve(tell).await;
            (files, datagrams)
        })
        .unwrap();
    let address = told.recv().unwrap();
    let clients = LocalExecutorBuilder::new(Placement::Unbound)
        .spawn(move || async move {
            joined((0..CONNECTIONS).map(|c| spawn_local(client(address, c))).collect()).await
        })
        .unwrap();
    let echoed = clients.join().unwrap();
    let (files, datagrams) = run.join().unwrap();
    finish(files, echoed, datagrams);
}

async fn files() -> Sum {
    let directory = directory();
    let tasks: Vec<_> = (0..FILES)
        .map(|file| {
            let (path, renamed) =
                (directory.join(format!("g{file}")), directory.join(format!("h{file}")));
            spawn_local(async move {
                let mut sum = Sum::default();
                let out = DmaFile::create(&path).await.unwrap();
                for chunk in (0..CHUNKS).rev() {
                    let mut buffer = out.alloc_dma_buffer(CHUNK);
                    buffer.as_bytes_mut().copy_from_slice(&content(file, chunk));
                    assert_eq!(out.write_at(buffer, (chunk * CHUNK) as u64).await.unwrap(), CHUNK);
                }
                out.fdatasync().await.unwrap();
                assert_eq!(out.file_size().await.unwrap(), (CHUNKS * CHUNK) as u64);
                out.close().await.unwrap();
                rename(&path, &renamed).await.unwrap();
                let back = DmaFile::open(&renamed).await.unwrap();
                for chunk in 0..CHUNKS {
                    let buffer = back.read_at((chunk * CHUNK) as u64, CHUNK).await.unwrap();
                    assert_eq!(buffer[..], content(file, chunk)[..]);
                    sum.add(&buffer);
                }
                back.close().await.unwrap();
                glommio::io::remove(&renamed).await.unwrap();
                assert!(DmaFile::open(&renamed).await.is_err());
                sum
            })
        })
        .collect();
    joined(tasks).await
}

async fn joined(tasks: Vec<Task<Sum>>) -> Sum {
    let mut all = Sum::default();
    for task in tasks {
        all.join(task.await);
    }
    all
}

async fn serve(tell: Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    tell.send(listener.local_addr().unwrap()).unwrap();
    let mut echoes = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = listener.accept().await.unwrap();
        echoes.push(spawn_local(echo(stream)));
    }
    let none = timeout(PATIENCE, async { listener.accept().await.map(drop) }).await;
    assert!(matches!(none, Err(GlommioError::TimedOut(_))));
    for echo in echoes {
        echo.await;
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 4096];
    loop {
        let n = stream.read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        stream.write_all(&buffer[..n]).await.unwrap();
    }
}

async fn client(address: SocketAddr, connection: usize) -> Sum {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut sum = Sum::default();
    for round in 0..ROUNDS {
        let message = message(connection, round);
        stream.write_all(&message).await.unwrap();
        let mut got = vec![0; message.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got == message);
        sum.add(&got);
    }
    stream.shutdown(std::net::Shutdown::Write).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    sum
}

async fn datagrams() -> Sum {
    let any = "127.0.0.1:0";
    let (one, other) = (UdpSocket::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
    let to = other.local_addr().unwrap();
    let mut sum = Sum::default();
    for i in 0..DATAGRAMS {
        let sent = content(i, 0)[..1 + i * 7].to_vec();
        assert_eq!(one.send_to(&sent, to).await.unwrap(), sent.len());
        let mut buffer = vec![0; 4096];
        let (n, from) = other.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..n], from), (&sent[..], one.local_addr().unwrap()));
        sum.add(&buffer[..n]);
    }
    let none = timeout(PATIENCE, async { other.recv_from(&mut [0; 8]).await.map(drop) }).await;
    assert!(matches!(none, Err(GlommioError::TimedOut(_))));
    sum
}
