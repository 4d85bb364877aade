//! Promises a clock that a test of the built program moves: the machine's, ahead by the
//! milliseconds that a file says. Compiled only with debug assertions.
//!
//! Waits of the wire (a connection, an answer) stay on the machine's time: what a test moves is
//! how long the program waits of its own will.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Names the file.
const VARIABLE: &str = "TAPWAVE_TEST_CLOCK";
/// How old what was read may be.
const GLANCE: Duration = Duration::from_millis(2);

/// A file that says how far ahead the time is.
#[derive(Debug)]
pub(super) struct Moved {
    file: PathBuf,
    read: Mutex<Option<(Instant, Duration)>>,
}

impl Moved {
    /// The clock of whoever tests this process.
    pub(super) fn asked_for() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|file| Self::at(file.into()))
    }

    fn at(file: PathBuf) -> Self {
        Self { file, read: Mutex::new(None) }
    }

    /// How far the time is ahead of the machine's. A file that cannot be read has not moved.
    pub(super) fn ahead(&self) -> Duration {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = read.map(|(_, ahead)| ahead).unwrap_or_default();
        if let Some((when, ahead)) = *read
            && when.elapsed() < GLANCE
        {
            return ahead;
        }
        let said = std::fs::read_to_string(&self.file).ok();
        let millis = said.and_then(|said| said.trim().parse().ok());
        // Time does not go back.
        let ahead = millis.map_or(before, Duration::from_millis).max(before);
        *read = Some((Instant::now(), ahead));
        ahead
    }

    /// Waits for so much of this clock's time.
    pub(super) async fn sleep(&self, wait: Duration) {
        let (began, ahead) = (Instant::now(), self.ahead());
        loop {
            let passed = began.elapsed() + self.ahead().saturating_sub(ahead);
            let Some(left) = wait.checked_sub(passed).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left.min(2 * GLANCE)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_wait_ends_when_the_file_moves_the_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("clock");
        let clock = Moved::at(file.clone());
        assert_eq!(clock.ahead(), Duration::ZERO, "no file yet");
        let waited = async {
            let hour = Duration::from_hours(1);
            clock.sleep(hour).await;
            clock.ahead()
        };
        let moving = async {
            tokio::task::yield_now().await;
            std::fs::write(&file, "3600000").expect("written");
        };
        let (ahead, ()) = tokio::join!(waited, moving);
        assert_eq!(ahead, Duration::from_hours(1));
        std::fs::write(&file, "5").expect("written");
        tokio::time::sleep(2 * GLANCE).await;
        assert_eq!(clock.ahead(), Duration::from_hours(1), "it does not go back");
    }
}
