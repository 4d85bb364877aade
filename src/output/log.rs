//! Promises the log: JSON lines of what was called and what came of it.
//!
//! Only this crate's own events are let in: the HTTP library's print whole URLs. They hold no
//! code, no token, no body.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Where log lines go; files can be added while it runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Files>>);

#[derive(Debug, Default)]
struct Files {
    named: Option<File>,
    of_run: Option<File>,
}

impl Log {
    /// Begins to listen. With `loud`, the lines go to stderr too, for people.
    #[must_use]
    pub fn begin(loud: bool) -> Self {
        let log = Self::default();
        let ours = || Targets::new().with_target("tapwave", Level::DEBUG);
        let files = fmt::layer().json().flatten_event(true).with_writer(log.clone());
        let people = fmt::layer().compact().with_ansi(false).with_target(false);
        let people = loud.then(|| people.with_writer(io::stderr).with_filter(ours()));
        let begun =
            tracing_subscriber::registry().with(files.with_filter(ours())).with(people).try_init();
        // Somebody who embeds the library may listen already; then the lines are theirs.
        drop(begun);
        log
    }

    /// Writes to this file too from now on.
    pub fn add(&self, file: File) {
        self.files().named = Some(file);
    }

    /// Writes to this file of a run too from now on; to none, and lets go of the file, if there is
    /// no run any more.
    pub fn of_run(&self, file: Option<File>) {
        self.files().of_run = file;
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut files = self.files();
        let Files { named, of_run } = &mut *files;
        for file in named.iter_mut().chain(of_run) {
            file.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
