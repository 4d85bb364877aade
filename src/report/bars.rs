//! Promises a bar per stage with rate and time left, on a terminal; nothing elsewhere.
//!
//! Lines of words go through here too, so that a bar never tears one apart.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::Doing;

/// The bars of one command.
pub struct Bars {
    screen: Option<MultiProgress>,
    bars: Mutex<HashMap<Doing, ProgressBar>>,
}

impl Bars {
    pub(super) fn new(wanted: bool) -> Self {
        Self { screen: wanted.then(MultiProgress::new), bars: Mutex::default() }
    }

    /// A line of words on stderr, above the bars.
    pub(super) fn line(&self, line: &str) {
        let print = || {
            // Nobody is left to tell if stderr is gone.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &self.screen {
            Some(screen) => screen.suspend(print),
            None => print(),
        }
    }

    pub(super) fn begin(&self, doing: Doing, total: Option<u64>) {
        let Some(screen) = &self.screen else { return };
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(measured()),
            None => ProgressBar::new_spinner().with_style(endless()),
        };
        let bar = screen.add(bar.with_prefix(word(doing)));
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Some(old) = self.all().insert(doing, bar) {
            old.finish_and_clear();
        }
    }

    pub(super) fn advance(&self, doing: Doing, rows: u64) {
        if let Some(bar) = self.all().get(&doing) {
            bar.inc(rows);
        }
    }

    pub(super) fn end(&self, doing: Doing) {
        if let Some(bar) = self.all().remove(&doing) {
            bar.finish_and_clear();
        }
    }

    /// Takes all bars off the screen.
    pub(super) fn clear(&self) {
        for (_, bar) in self.all().drain() {
            bar.finish_and_clear();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Doing, ProgressBar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn measured() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:>9} [{bar:32}] {pos}/{len} · {per_sec:.1} · {eta_precise} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .progress_chars("=> ")
}

fn endless() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>9} {spinner} {pos} · {elapsed_precise}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

const fn word(doing: Doing) -> &'static str {
    match doing {
        Doing::Read => "reading",
        Doing::Check => "checking",
        Doing::Issue => "issuing",
        Doing::Settle => "settling",
        Doing::Handoff => "handoff",
        Doing::Deliver => "mailing",
        Doing::Remove => "removing",
        Doing::Prove => "proving",
    }
}
