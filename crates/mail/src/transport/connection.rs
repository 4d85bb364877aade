//! Promises one command and its whole answer at a time over a connection to a relay, and that
//! nothing which came before TLS is taken for something that came over it. Must never read an
//! answer without end, nor judge one.
//!
//! lettre forms the commands; its own connections are not used: they keep what somebody sent in
//! the clear behind STARTTLS's answer, and write text and dot in one step.

use std::fmt::Display;
use std::io;

use futures::FutureExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use zeroize::Zeroizing;

use super::reply::SmtpReply;
use super::route::RouteConnection;
use tapwave_core::limits;

/// A connection to a relay.
pub(super) struct SmtpConnection {
    wire: BufReader<RouteConnection>,
}

impl SmtpConnection {
    pub(super) fn new(wire: RouteConnection) -> Self {
        Self { wire: BufReader::new(wire) }
    }

    /// Sends a command, which brings its own line end, and hears its answer. What has come
    /// before the question answers another one, or nobody's: then nothing is asked.
    pub(super) async fn ask(&mut self, command: impl Display) -> io::Result<SmtpReply> {
        self.is_quiet()?;
        // May hold a password.
        let command = Zeroizing::new(command.to_string());
        self.write(command.as_bytes()).await?;
        self.hear().await
    }

    /// One whole answer, whatever it says.
    pub(super) async fn hear(&mut self) -> io::Result<SmtpReply> {
        let mut answer = Vec::new();
        loop {
            let begin = answer.len();
            let room = limits::MAX_SMTP_ANSWER_BYTES.saturating_sub(begin as u64);
            let read = (&mut self.wire).take(room).read_until(b'\n', &mut answer).await;
            // TLS calls it an error if the other side goes without a word.
            let gone = |error: io::Error| match error.kind() {
                io::ErrorKind::UnexpectedEof => closed(),
                _ => error,
            };
            read.map_err(gone)?;
            let line = &answer[begin..];
            if line.is_empty() && room > 0 {
                return Err(closed());
            }
            if !line.ends_with(b"\n") {
                return Err(unfit());
            }
            if line.get(3) != Some(&b'-') {
                break;
            }
        }
        SmtpReply::read(&answer).ok_or_else(|| if is_web(&answer) { web() } else { unfit() })
    }

    /// Makes sure, without waiting, that the relay has neither gone nor said anything that it was
    /// not asked for. An answer that lies there would be taken for the next command's.
    pub(super) fn is_quiet(&mut self) -> io::Result<()> {
        match self.wire.fill_buf().now_or_never() {
            None => Ok(()),
            Some(Ok([])) => Err(closed()),
            Some(Ok(_)) => Err(unasked()),
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(closed()),
            Some(Err(error)) => Err(error),
        }
    }

    /// Sends a mail's text, all but the final dot.
    pub(super) async fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.write(&stuffed(text)).await
    }

    /// Sends the final dot. From the first byte on, the mail may count as taken.
    pub(super) async fn dot(&mut self) -> io::Result<()> {
        self.write(b".\r\n").await
    }

    /// The bare connection, to begin TLS on. `None` if something has come that nobody asked
    /// for: whoever can write into the line wants it taken for the relay's words.
    pub(super) fn into_wire(self) -> Option<RouteConnection> {
        self.wire.buffer().is_empty().then(|| self.wire.into_inner())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await?;
        self.wire.flush().await
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the relay closed the connection")
}

fn unasked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the relay answered what it was not asked")
}

/// Whether a web server, or whoever shows a page, speaks here.
fn is_web(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/") || answer.trim_ascii_start().starts_with(b"<")
}

/// Somebody else answered in the relay's place.
#[derive(Debug, thiserror::Error)]
#[error(
    "a web server answers in the relay's place: check host and port in [mail]; a proxy may stand \
     in between: sign in at its page with a browser on this machine, or have it let the relay \
     through"
)]
pub(super) struct Web;

fn web() -> io::Error {
    io::Error::other(Web)
}

fn unfit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the relay's answer is no SMTP, or has no end")
}

/// The text as it goes over the line: a dot that begins a line is doubled (RFC 5321, 4.5.2),
/// and the last line has its end.
fn stuffed(text: &[u8]) -> Zeroizing<Vec<u8>> {
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

    async fn heard(sent: &[u8]) -> io::Result<SmtpReply> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(sent).await.expect("room");
        drop(far);
        SmtpConnection::new(Box::new(near)).hear().await
    }

    #[tokio::test]
    async fn an_answer_is_heard_whole_or_not_at_all() {
        let answer = heard(b"250-one\r\n250-two\r\n250 three\r\n999 next\r\n").await.expect("one");
        assert_eq!(answer.lines().collect::<Vec<_>>(), ["one", "two", "three"]);
        assert!(answer.has_code(250));
        assert!(heard(b"550 5.1.1 nobody\r\n").await.expect("a refusal").has_code(550));
        let endless = [&b"250-"[..], &b"x".repeat(1 << 19), b"\r\n250 end\r\n"].concat();
        let many = [b"250-x\r\n".repeat(1 << 16), b"250 end\r\n".to_vec()].concat();
        for bad in
            [&b""[..], b"250-one\r\n", b"250", b"hello\r\n", b"250-a\r\n550 b\r\n", &endless, &many]
        {
            assert!(heard(bad).await.is_err(), "{:?}", &bad[..bad.len().min(20)]);
        }
    }

    #[test]
    fn dots_that_begin_a_line_are_doubled() {
        for (text, sent) in [
            (&b"a\r\n"[..], &b"a\r\n"[..]),
            (b"a", b"a\r\n"),
            (b".\r\n.b\r\nc.\r\n", b"..\r\n..b\r\nc.\r\n"),
            (b"", b"\r\n"),
        ] {
            assert_eq!(&**stuffed(text), sent);
        }
    }

    #[tokio::test]
    async fn what_came_unasked_is_no_ground_for_tls() {
        for (sent, clean) in [(&b"220 go\r\n"[..], true), (b"220 go\r\n250 mine\r\n", false)] {
            let (near, mut far) = tokio::io::duplex(1 << 10);
            far.write_all(sent).await.expect("room");
            let mut line = SmtpConnection::new(Box::new(near));
            line.hear().await.expect("an answer");
            assert_eq!(line.into_wire().is_some(), clean);
        }
    }
}
