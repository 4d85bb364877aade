//! Promises a relay in the clear that does as a script says, however wrong that is, and counts
//! the mails that came whole.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the relay does when it has read something.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Says this, ends of lines included.
    Say(Vec<u8>),
    /// Says this one byte after the other, so far apart.
    Drip(Vec<u8>, Duration),
    /// Says this when the number has come so far.
    Later(Vec<u8>, watch::Receiver<usize>, usize),
    /// Says this until nobody listens any more.
    Flood(Vec<u8>),
    /// Says this and closes its own half; it goes on reading.
    HalfClose(Vec<u8>),
    /// Closes.
    Close,
    /// Says nothing.
    Nothing,
}

/// Says this line.
pub(crate) fn say(line: &str) -> Act {
    Act::Say(format!("{line}\r\n").into_bytes())
}

/// What a kind relay does. The word is a command's, `GREETING`, `.` after the text, or
/// `ANSWER` for a line in a sign-in.
pub(crate) fn kind(word: &str) -> Act {
    say(match word {
        "GREETING" => "220 nasty.example",
        "EHLO" => "250-nasty.example\r\n250 AUTH PLAIN LOGIN",
        "AUTH" => "235 welcome",
        "DATA" => "354 go on",
        "QUIT" => "221 bye",
        _ => "250 ok",
    })
}

/// What it does at the n-th hearing of a word, counted over all connections from 1.
pub(crate) type Script = Box<dyn Fn(&str, usize) -> Act + Send + Sync>;

/// A running relay. Ends with the runtime it was started on.
pub(crate) struct Nasty {
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    script: Script,
    words: Mutex<Vec<String>>,
    taken: Mutex<Vec<Vec<u8>>>,
}

impl Nasty {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State { script, words: Mutex::default(), taken: Mutex::default() });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                // A line that breaks is what the scripts are about.
                tokio::spawn(async move { serve(&state, BufReader::new(stream)).await });
            }
        });
        Self { port, state }
    }

    /// The words it has heard.
    pub(crate) fn words(&self) -> Vec<String> {
        self.state.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The mails that came with their final dot, whatever was answered.
    pub(crate) fn whole(&self) -> Vec<Vec<u8>> {
        self.state.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    fn hears(&self, word: &str) -> Act {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.push(word.to_owned());
        let nth = words.iter().filter(|heard| *heard == word).count();
        (self.script)(word, nth)
    }
}

async fn serve(state: &State, mut wire: BufReader<TcpStream>) -> std::io::Result<()> {
    if !act(&mut wire, state.hears("GREETING")).await? {
        return Ok(());
    }
    let mut signing_in = false;
    loop {
        let mut line = Vec::new();
        if wire.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let word = if signing_in { "ANSWER".to_owned() } else { word };
        let next = state.hears(&word);
        let begins = |code: &[u8]| matches!(&next, Act::Say(said) if said.starts_with(code));
        signing_in = begins(b"334");
        let text = word == "DATA" && begins(b"354");
        if !act(&mut wire, next).await? {
            return Ok(());
        }
        if text {
            let mut mail = Vec::new();
            while !mail.ends_with(b"\r\n.\r\n") {
                if wire.read_until(b'\n', &mut mail).await? == 0 {
                    return Ok(());
                }
            }
            state.taken.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
            if !act(&mut wire, state.hears(".")).await? {
                return Ok(());
            }
        }
    }
}

/// False if the connection is to be closed.
async fn act(wire: &mut BufReader<TcpStream>, act: Act) -> std::io::Result<bool> {
    match act {
        Act::Say(bytes) => wire.write_all(&bytes).await?,
        Act::Drip(bytes, apart) => {
            for byte in bytes {
                wire.write_all(&[byte]).await?;
                tokio::time::sleep(apart).await;
            }
        }
        Act::Later(bytes, mut reached, number) => {
            // A test that has ended sends nothing more.
            let _ = reached.wait_for(|reached| *reached >= number).await;
            wire.write_all(&bytes).await?;
        }
        Act::Flood(bytes) => loop {
            wire.write_all(&bytes).await?;
        },
        Act::HalfClose(bytes) => {
            wire.write_all(&bytes).await?;
            wire.get_mut().shutdown().await?;
        }
        Act::Close => return Ok(false),
        Act::Nothing => {}
    }
    Ok(true)
}
