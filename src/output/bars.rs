//! Promises a bar per stage with rate and time left, on a terminal; nothing elsewhere.
//!
//! Lines of words go through here too, so that a bar never tears one apart.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dialoguer::console::Term;
use indicatif::{
    MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike,
};

use super::lasting;
use super::left::TimeLeft;
use tapwave_core::progress::Activity;
use tapwave_core::shown::{escaped, lines};

/// How often a bar is drawn at most.
const DRAWS_PER_SECOND: u8 = 20;

/// The bars of one command.
pub struct Bars {
    screen: Option<MultiProgress>,
    bars: Mutex<HashMap<Activity, ShownBar>>,
}

/// A bar, and what is known of the time left. Cheap to clone.
///
/// While indicatif draws, it holds the bar's state and calls our keys, which take a lock of
/// ours. So no lock of ours is held while anything of indicatif's is called: a thread that held
/// one and waited for the bar's state would keep both for ever.
#[derive(Clone)]
struct ShownBar {
    bar: ProgressBar,
    left: Arc<Mutex<TimeLeft>>,
}

impl Bars {
    pub(super) fn new(wanted: bool) -> Self {
        let screen = || {
            let screen = Box::new(Screen(Term::buffered_stderr()));
            let target = ProgressDrawTarget::term_like_with_hz(screen, DRAWS_PER_SECOND);
            MultiProgress::with_draw_target(target)
        };
        Self { screen: wanted.then(screen), bars: Mutex::default() }
    }

    /// One line of words on stderr, above the bars. Whatever they were made of, nothing in them
    /// reaches the terminal as more than a character, and an end of a line that came along from
    /// outside makes no other line.
    pub(super) fn line(&self, words: &str) {
        self.print(&escaped(words));
    }

    /// The same for words of several lines that are our own.
    pub(super) fn lines(&self, words: &str) {
        self.print(&lines(words));
    }

    fn print(&self, line: &str) {
        let print = || {
            // Nobody is left to tell if stderr is gone.
            let _ = writeln!(io::stderr().lock(), "{line}");
        };
        match &self.screen {
            Some(screen) => screen.suspend(print),
            None => print(),
        }
    }

    pub(super) fn begin(&self, doing: Activity, total: Option<u64>) {
        let Some(screen) = &self.screen else { return };
        let left = Arc::new(Mutex::new(TimeLeft::of(total.unwrap_or_default())));
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(measured(Arc::clone(&left))),
            None => ProgressBar::new_spinner().with_style(endless()),
        };
        let bar = screen.add(bar.with_prefix(word(doing)));
        bar.enable_steady_tick(Duration::from_millis(200));
        let old = self.all().insert(doing, ShownBar { bar, left });
        if let Some(old) = old {
            old.bar.finish_and_clear();
        }
    }

    pub(super) fn advance(&self, doing: Activity, rows: u64) {
        if let Some(ShownBar { bar, left }) = self.of(doing) {
            bar.inc(rows);
            let elapsed = bar.elapsed();
            known(&left).did(elapsed, rows);
        }
    }

    pub(super) fn foresee(&self, doing: Activity, per_second: f64, holding: Duration) {
        if let Some(ShownBar { bar, left }) = self.of(doing) {
            let elapsed = bar.elapsed();
            known(&left).foresee(elapsed, per_second, holding);
        }
    }

    pub(super) fn end(&self, doing: Activity) {
        let ended = self.all().remove(&doing);
        if let Some(ShownBar { bar, .. }) = ended {
            bar.finish_and_clear();
        }
    }

    /// Takes all bars off the screen.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.all());
        for ShownBar { bar, .. } in all.into_values() {
            bar.finish_and_clear();
        }
    }

    /// Whether bars are drawn at all.
    pub(super) const fn are_drawn(&self) -> bool {
        self.screen.is_some()
    }

    fn of(&self, doing: Activity) -> Option<ShownBar> {
        self.all().get(&doing).cloned()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Activity, ShownBar>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The terminal on stderr, which may be gone: the run goes on to its end all the same, where
/// indicatif would panic over what cannot be written.
#[derive(Debug)]
struct Screen(Term);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        TermLike::width(&self.0)
    }

    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        unless_gone(self.0.move_cursor_up(lines))
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        unless_gone(self.0.move_cursor_down(lines))
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        unless_gone(self.0.move_cursor_right(columns))
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        unless_gone(self.0.move_cursor_left(columns))
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        unless_gone(self.0.write_line(line))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        unless_gone(self.0.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        unless_gone(self.0.clear_line())
    }

    fn flush(&self) -> io::Result<()> {
        unless_gone(self.0.flush())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what the trait asks for")]
fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    // Nobody is left to tell.
    drop(written);
    Ok(())
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

const fn word(doing: Activity) -> &'static str {
    match doing {
        Activity::Read => "reading",
        Activity::Check | Activity::Look => "checking",
        Activity::Issue => "issuing",
        Activity::Reconcile => "settling",
        Activity::Handoff => "handoff",
        Activity::Deliver => "mailing",
        Activity::Remove => "removing",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// How often each thing is done; a lock that is held too long froze within the first hundred.
    const TIMES: u64 = 20_000;
    /// After this, nothing will come any more.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// A terminal that shows nothing.
    #[derive(Debug)]
    struct Nowhere;

    impl TermLike for Nowhere {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn write_str(&self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What indicatif's ticker does a few times a second, as fast as it goes.
    fn draw_until(over: &AtomicBool, bar: &ProgressBar) {
        while !over.load(Ordering::Relaxed) {
            bar.force_draw();
        }
    }

    #[test]
    fn news_that_come_while_a_bar_is_drawn_hold_nothing_up() {
        let screen =
            MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(Nowhere)));
        let bars = Arc::new(Bars { screen: Some(screen), bars: Mutex::default() });
        let (ended, all) = mpsc::channel();
        let working = Arc::clone(&bars);
        // Not joined: a test that fails must not hang itself.
        thread::spawn(move || {
            working.begin(Activity::Issue, Some(TIMES));
            let bar = working.all().get(&Activity::Issue).map(|shown| shown.bar.clone());
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| draw_until(&over, &bar.expect("begun")));
                for time in 0..TIMES {
                    working.advance(Activity::Issue, 1);
                    working.foresee(Activity::Issue, 20.0, Duration::ZERO);
                    if time % 1_000 == 0 {
                        working.begin(Activity::Deliver, None);
                        working.end(Activity::Deliver);
                    }
                }
                over.store(true, Ordering::Relaxed);
            });
            working.clear();
            ended.send(()).expect("waited for");
        });
        all.recv_timeout(PATIENCE).expect("the bars and the news wait for each other");
    }
}
