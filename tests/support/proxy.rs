//! Promises a proxy on a loopback port that knows CONNECT alone, writes down who asked it for
//! what, and leads every tunnel to one place, whatever name was asked for.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::smtp::Stream;

/// How the proxy behaves.
#[derive(Clone, Default)]
pub(crate) struct Ways {
    /// Where every tunnel leads: a port of this machine.
    pub(crate) target: u16,
    /// What it answers instead of letting anybody through.
    pub(crate) refuses: Option<&'static str>,
    /// Its own yes and the far side's first words leave in one piece.
    pub(crate) together: bool,
    /// It wants TLS for itself.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// A running proxy. Ends with the runtime it was started on.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one.
    pub(crate) async fn start(ways: Ways) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let writing = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (ways, asked) = (ways.clone(), Arc::clone(&writing));
                tokio::spawn(async move {
                    // A line that breaks ends its tunnel.
                    let _ = serve(&ways, stream, &asked).await;
                });
            }
        });
        Self { port, asked }
    }

    /// The heads of all requests, in the order they came.
    pub(crate) fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(ways: &Ways, stream: TcpStream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let stream: Box<dyn Stream> = match &ways.tls {
        Some(tls) => Box::new(tls.accept(stream).await?),
        None => Box::new(stream),
    };
    let mut near = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if near.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let connect = head.starts_with("CONNECT ");
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    if let Some(answer) = ways.refuses.or((!connect).then_some("405 Method Not Allowed")) {
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 3\r\n\r\nno\n");
        return near.write_all(answer.as_bytes()).await;
    }
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, ways.target)).await?;
    let mut first = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n".to_vec();
    if ways.together {
        let mut words = [0; 512];
        let read = far.read(&mut words).await?;
        first.extend_from_slice(&words[..read]);
    }
    near.write_all(&first).await?;
    near.flush().await?;
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}
