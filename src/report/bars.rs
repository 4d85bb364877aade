//! Promises a bar per stage with rate and time left, on a terminal; nothing elsewhere.
//!
//! Lines of words go through here too, so that a bar never tears one apart.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::lasting;
use super::left::TimeLeft;
use crate::progress::Doing;
use crate::shown::lines;

/// The bars of one command.
pub struct Bars {
    screen: Option<MultiProgress>,
    bars: Mutex<HashMap<Doing, Shown>>,
}

/// A bar, and what is known of the time left.
struct Shown {
    bar: ProgressBar,
    left: Arc<Mutex<TimeLeft>>,
}

impl Bars {
    pub(super) fn new(wanted: bool) -> Self {
        Self { screen: wanted.then(MultiProgress::new), bars: Mutex::default() }
    }

    /// Words on stderr, above the bars. Whatever they were made of, nothing in them but ends
    /// of lines reaches the terminal as more than a character.
    pub(super) fn line(&self, words: &str) {
        let line = lines(words);
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
        let left = Arc::new(Mutex::new(TimeLeft::of(total.unwrap_or_default())));
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(measured(Arc::clone(&left))),
            None => ProgressBar::new_spinner().with_style(endless()),
        };
        let bar = screen.add(bar.with_prefix(word(doing)));
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Some(old) = self.all().insert(doing, Shown { bar, left }) {
            old.bar.finish_and_clear();
        }
    }

    pub(super) fn advance(&self, doing: Doing, rows: u64) {
        if let Some(Shown { bar, left }) = self.all().get(&doing) {
            bar.inc(rows);
            known(left).did(bar.elapsed(), rows);
        }
    }

    pub(super) fn foresee(&self, doing: Doing, per_second: f64, holding: Duration) {
        if let Some(Shown { bar, left }) = self.all().get(&doing) {
            known(left).foresee(bar.elapsed(), per_second, holding);
        }
    }

    pub(super) fn end(&self, doing: Doing) {
        if let Some(Shown { bar, .. }) = self.all().remove(&doing) {
            bar.finish_and_clear();
        }
    }

    /// Takes all bars off the screen.
    pub(super) fn clear(&self) {
        for (_, Shown { bar, .. }) in self.all().drain() {
            bar.finish_and_clear();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Doing, Shown>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known(left: &Mutex<TimeLeft>) -> MutexGuard<'_, TimeLeft> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

fn measured(left: Arc<Mutex<TimeLeft>>) -> ProgressStyle {
    ProgressStyle::with_template("{prefix:>9} [{bar:32}] {pos}/{len} · {pace} · {left}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("pace", |state: &ProgressState, line: &mut dyn fmt::Write| {
            // A screen that takes no more has nobody to tell.
            let _ = write!(line, "{:.1}/s", state.per_sec());
        })
        .with_key("left", move |state: &ProgressState, line: &mut dyn fmt::Write| {
            if let Some(left) = known(&left).left(state.elapsed()) {
                // A screen that takes no more has nobody to tell.
                let _ = write!(line, "{} left", lasting(whole_seconds(left)));
            }
        })
        .progress_chars("=> ")
}

/// Tenths that change five times a second tell nobody anything.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_millis() >= 500))
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
        Doing::Look => "checking",
        Doing::Handoff => "handoff",
        Doing::Deliver => "mailing",
        Doing::Remove => "removing",
    }
}
