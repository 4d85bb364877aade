//! Promises a proxy's own word on a connection that it is asked for (RFC 9110, 9.3.6), read to
//! the end of its head and no further. Must never show the login that it was given.

use std::io;

use hyper_util::client::proxy::matcher::Intercept;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use zeroize::Zeroizing;

use super::http::AGENT;
use tapwave_core::limits;
use tapwave_core::shown::plain;

/// What a proxy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectReply {
    pub status: u16,
    /// The ways to sign in that it offers.
    pub schemes: Vec<String>,
}

/// Asks for a connection to `to`, a host and a port. `None` if what answers speaks no HTTP.
pub async fn ask<W: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut BufReader<W>,
    to: &str,
    proxy: &Intercept,
) -> io::Result<Option<ConnectReply>> {
    let mut ask = Zeroizing::new(Vec::with_capacity(limits::MAX_SECRET_BYTES));
    let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {AGENT}\r\n");
    ask.extend_from_slice(head.as_bytes());
    if let Some(login) = proxy.basic_auth() {
        ask.extend_from_slice(b"Proxy-Authorization: ");
        ask.extend_from_slice(login.as_bytes());
        ask.extend_from_slice(b"\r\n");
    }
    ask.extend_from_slice(b"\r\n");
    wire.write_all(&ask).await?;
    wire.flush().await?;
    read_reply(wire).await
}

async fn read_reply<W: AsyncRead + Unpin>(
    wire: &mut BufReader<W>,
) -> io::Result<Option<ConnectReply>> {
    let mut head = Vec::new();
    loop {
        let room = limits::MAX_PROXY_ANSWER_BYTES.saturating_sub(head.len() as u64);
        if wire.take(room).read_until(b'\n', &mut head).await? == 0 {
            let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
            return if room > 0 { Err(closed()) } else { Ok(None) };
        }
        let mut headers = [httparse::EMPTY_HEADER; limits::MAX_PROXY_ANSWER_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&head) {
            Ok(parsed) if parsed.is_partial() => {}
            Ok(_) => {
                let offers = answer.headers.iter().filter(|header| is_offer(header.name));
                let schemes = offers.flat_map(|header| schemes(header.value)).collect();
                return Ok(answer.code.map(|status| ConnectReply { status, schemes }));
            }
            Err(_) => return Ok(None),
        }
    }
}

fn is_offer(header: &str) -> bool {
    header.eq_ignore_ascii_case("proxy-authenticate")
}

/// The ways to sign in that one `Proxy-Authenticate` names: a list of schemes, each with parameters
/// that are themselves listed (RFC 9110, 11.6.1).
pub fn schemes(offer: &[u8]) -> Vec<String> {
    let offer = String::from_utf8_lossy(offer);
    let mut quoted = false;
    let items = offer.split(|c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    let first = items.filter_map(|item| item.split_whitespace().next());
    first.filter(|word| !word.contains('=')).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_of_a_list_is_read() {
        for (offer, read) in [
            ("Basic realm=\"x\"", &["Basic"][..]),
            ("Negotiate, Basic realm=\"a, Digest b\", NTLM", &["Negotiate", "Basic", "NTLM"]),
            ("Digest realm=\"x\", nonce=\"y\", Basic", &["Digest", "Basic"]),
            ("Negotiate YIIabc==,Kerberos", &["Negotiate", "Kerberos"]),
            (" , ", &[]),
        ] {
            assert_eq!(schemes(offer.as_bytes()), read, "{offer}");
        }
    }
}
