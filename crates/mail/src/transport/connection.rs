//! Promises one command and its complete reply at a time over a connection to a relay, and that
//! bytes that came before TLS are not taken for bytes that came over it. Must never read a reply
//! without end, nor judge one.
//!
//! lettre builds the commands, but its connections are not used: they keep what follows the reply
//! to STARTTLS in the clear, and write the text and the final dot in one step.

use std::fmt::Display;
use std::io;

use futures::FutureExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::reply::{Capabilities, SmtpReply};
use super::route::RouteConnection;
use tapwave_core::limits;

pub(super) struct SmtpConnection {
    stream: BufReader<RouteConnection>,
}

/// A connection that is signed in.
pub(super) struct IdleConnection {
    pub(super) smtp: SmtpConnection,
    pub(super) capabilities: Capabilities,
    pub(super) mails: u32,
    pub(super) since: Instant,
    /// It was kept for a later mail, so the relay may have closed it.
    pub(super) was_idle: bool,
    /// Its latest mail was refused: RSET must come before the next one.
    pub(super) needs_reset: bool,
}

impl SmtpConnection {
    pub(super) fn new(stream: RouteConnection) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a command, which has its own line end, and reads the reply. Fails if bytes are already
    /// waiting: they would be taken for the reply.
    pub(super) async fn command(&mut self, command: impl Display) -> io::Result<SmtpReply> {
        self.check_idle()?;
        // May hold a password.
        let command = Zeroizing::new(command.to_string());
        self.write(command.as_bytes()).await?;
        self.read_reply().await
    }

    /// Reads one complete reply.
    pub(super) async fn read_reply(&mut self) -> io::Result<SmtpReply> {
        let mut reply = Vec::new();
        loop {
            let start = reply.len();
            let room = limits::MAX_SMTP_ANSWER_BYTES.saturating_sub(start as u64);
            let read = (&mut self.stream).take(room).read_until(b'\n', &mut reply).await;
            // TLS reports a close without close_notify as an error.
            read.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => closed(),
                _ => error,
            })?;
            let line = &reply[start..];
            if line.is_empty() && room > 0 {
                return Err(closed());
            }
            if !line.ends_with(b"\n") {
                return Err(not_smtp());
            }
            if line.get(3) != Some(&b'-') {
                break;
            }
        }
        SmtpReply::parse(&reply).ok_or_else(|| {
            if is_web(&reply) { io::Error::other(WebServerAnswered) } else { not_smtp() }
        })
    }

    /// Fails, without waiting, if the relay has closed the connection or sent something unasked, which
    /// would be taken for the reply to the next command.
    pub(super) fn check_idle(&mut self) -> io::Result<()> {
        match self.stream.fill_buf().now_or_never() {
            None => Ok(()),
            Some(Ok([])) => Err(closed()),
            Some(Ok(_)) => Err(unasked()),
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(closed()),
            Some(Err(error)) => Err(error),
        }
    }

    /// Sends a mail's text without the final dot.
    pub(super) async fn send_text(&mut self, text: &[u8]) -> io::Result<()> {
        self.write(&dot_stuffed(text)).await
    }

    /// Sends the final dot. From its first byte on the relay may have accepted the mail.
    pub(super) async fn send_dot(&mut self) -> io::Result<()> {
        self.write(b".\r\n").await
    }

    /// The bare connection, to begin TLS on. `None` if something has come unasked: an attacker may
    /// want it to be taken for the relay's reply.
    pub(super) fn into_stream(self) -> Option<RouteConnection> {
        self.stream.buffer().is_empty().then(|| self.stream.into_inner())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the relay closed the connection")
}

fn unasked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the relay answered what it was not asked")
}

/// Whether a web server, or a proxy's page, answered.
fn is_web(reply: &[u8]) -> bool {
    reply.starts_with(b"HTTP/") || reply.trim_ascii_start().starts_with(b"<")
}

#[derive(Debug, thiserror::Error)]
#[error(
    "a web server answers in the relay's place: check host and port in [mail]; a proxy may stand \
     in between: sign in at its page with a browser on this machine, or have it let the relay \
     through"
)]
pub(super) struct WebServerAnswered;

fn not_smtp() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the relay's answer is no SMTP, or has no end")
}

/// Doubles every dot at the beginning of a line (RFC 5321, 4.5.2), and ends the last line.
fn dot_stuffed(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let doubled = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b".")).count();
    let mut stuffed = Zeroizing::new(Vec::with_capacity(text.len() + doubled + 2));
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    if !stuffed.ends_with(b"\r\n") {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(sent: &[u8]) -> io::Result<SmtpReply> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(sent).await.expect("room");
        drop(far);
        SmtpConnection::new(Box::new(near)).read_reply().await
    }

    #[tokio::test]
    async fn a_reply_is_read_completely_or_is_an_error() {
        let answer = read(b"250-one\r\n250-two\r\n250 three\r\n999 next\r\n").await.expect("one");
        assert_eq!(answer.lines().collect::<Vec<_>>(), ["one", "two", "three"]);
        assert!(answer.has_code(250));
        assert!(read(b"550 5.1.1 nobody\r\n").await.expect("a refusal").has_code(550));
        let endless = [&b"250-"[..], &b"x".repeat(1 << 19), b"\r\n250 end\r\n"].concat();
        let many = [b"250-x\r\n".repeat(1 << 16), b"250 end\r\n".to_vec()].concat();
        for bad in
            [&b""[..], b"250-one\r\n", b"250", b"hello\r\n", b"250-a\r\n550 b\r\n", &endless, &many]
        {
            assert!(read(bad).await.is_err(), "{:?}", &bad[..bad.len().min(20)]);
        }
    }

    #[test]
    fn a_dot_at_the_beginning_of_a_line_is_doubled() {
        for (text, sent) in [
            (&b"a\r\n"[..], &b"a\r\n"[..]),
            (b"a", b"a\r\n"),
            (b".\r\n.b\r\nc.\r\n", b"..\r\n..b\r\nc.\r\n"),
            (b"", b"\r\n"),
        ] {
            assert_eq!(&**dot_stuffed(text), sent);
        }
    }

    #[tokio::test]
    async fn tls_does_not_begin_after_unasked_bytes() {
        for (sent, clean) in [(&b"220 go\r\n"[..], true), (b"220 go\r\n250 mine\r\n", false)] {
            let (near, mut far) = tokio::io::duplex(1 << 10);
            far.write_all(sent).await.expect("room");
            let mut connection = SmtpConnection::new(Box::new(near));
            connection.read_reply().await.expect("an answer");
            assert_eq!(connection.into_stream().is_some(), clean);
        }
    }
}
