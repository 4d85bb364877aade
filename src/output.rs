//! Promises every word, bar, table and JSON that a person or a script sees.
//!
//! stdout carries data, stderr carries words and progress. Rules: lower case, no full stop,
//! plurals right, meaning never by colour alone; name row and column; end with the next
//! command to type. Text from outside is shown with what steers a terminal written out; where
//! a caller forgot, the line itself is. The one
//! place that prints passes is `opened`, to whoever holds the identity.

mod bars;
mod left;
mod log;
mod manifest;
mod opened;
mod policy;
mod prompts;
mod settings;
mod tables;
mod terminal;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;

pub use self::bars::Bars;
pub use self::left::TimeLeft;
pub use self::log::Log;
pub use self::opened::{Doubled, OpenFailure, OpenLayout, Opened, Opening};
pub use self::policy::GroupNames;
pub use self::prompts::TerminalPrompts;
use self::terminal::Terminal;
use tapwave_core::exit::Exit;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::{Activity, Progress, ProgressEvent};
pub use tapwave_core::shown::escaped as shown;
use tapwave_core::shown::lines;
use tapwave_ledger::{Listed, RecipientRecord, Standing};
use tapwave_pipeline::run::cleanup::CleanupReport;
use tapwave_pipeline::run::intake::{RowProblem, WaveCheck};
use tapwave_pipeline::run::{NoticeState, Notices, RowStatus, Summary};

/// Most sets of recipients that are told before a run; `status --json` has all.
const SHOWN_SETS: usize = 20;
/// Longest command beside which those of the others are lined up, in characters.
const TABLE_COLUMN: usize = 60;

/// How much to say, and in which form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Only what went wrong.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// One JSON value on stdout.
    pub json: bool,
    /// No bars, even on a terminal.
    pub no_progress: bool,
}

/// Speaks.
pub struct Report {
    manner: Manner,
    bars: Bars,
    /// Rows that went wrong so far: the first are told one by one.
    wrong: AtomicUsize,
    /// The run that the command works on, once there is one.
    at_work: OnceLock<AtWork>,
    terminal: Terminal,
    /// Nobody is left who reads.
    hung_up: AtomicBool,
}

/// What to type about the run that a command works on.
#[derive(Debug)]
pub struct AtWork {
    /// What carries on with it.
    pub go_on: String,
    /// What shows its rows.
    pub status: String,
}

/// An error as a person reads it: what failed, and what to do about it.
#[derive(Debug)]
pub struct ErrorMessage {
    pub what: String,
    /// What to do, each a line.
    pub hints: Vec<String>,
}

impl Report {
    /// Speaks in this manner. Bars are drawn only when stderr is a terminal.
    #[must_use]
    pub fn new(manner: Manner) -> Self {
        let wanted = !manner.quiet && !manner.no_progress && manner.verbose < 2;
        Self {
            manner,
            bars: Bars::new(wanted && io::stderr().is_terminal()),
            wrong: AtomicUsize::new(0),
            at_work: OnceLock::new(),
            terminal: Terminal::found(),
            hung_up: AtomicBool::new(false),
        }
    }

    /// Whether stdout is for one JSON value.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.manner.json
    }

    /// A line of words; one line, whatever is in them.
    pub fn info(&self, words: impl fmt::Display) {
        if !self.manner.quiet {
            self.bars.line(&words.to_string());
        }
    }

    /// Lines of our own words.
    pub fn info_lines(&self, words: impl fmt::Display) {
        if !self.manner.quiet {
            self.bars.lines(&words.to_string());
        }
    }

    /// A line of words for `-v`.
    pub fn debug(&self, words: impl fmt::Display) {
        if self.manner.verbose > 0 {
            self.info(words);
        }
    }

    /// Something odd that stops nothing.
    pub fn warn(&self, words: impl fmt::Display) {
        self.info(format_args!("warning: {words}"));
    }

    /// Something that went wrong; said even when quiet.
    pub fn error(&self, words: impl fmt::Display) {
        self.bars.line(&format!("error: {words}"));
    }

    /// What ended a command before its end, and what to do about it; with `--json`, as the
    /// one object that stdout is promised.
    pub fn fail(&self, message: &ErrorMessage, exit: Exit) {
        self.error_with_hints(message);
        if self.manner.json {
            // Nobody is left to tell if stdout is gone.
            let _ = self.json(&tables::error(message, exit));
        }
    }

    /// From here on, what is said of a run means this one.
    pub fn work_on(&self, run: AtWork) {
        // A command works on one run.
        let _ = self.at_work.set(run);
    }

    /// The program ends at once, because it was asked twice. Takes no lock and waits for
    /// nobody: whatever is stuck may hold the screen.
    pub fn leave(&self) {
        let words = match self.at_work.get() {
            Some(AtWork { go_on, .. }) => {
                format!("error: left at once; everything committed is kept, {go_on} carries on")
            }
            None => "error: left at once".to_owned(),
        };
        self.terminal.last_words(&lines(&words), self.bars.are_drawn());
    }

    /// The command is given up: the terminal is as it was found, whatever was being asked.
    /// Tells what carries on.
    pub fn give_up(&self) -> Option<&str> {
        self.bars.clear();
        self.terminal.restore();
        self.at_work.get().map(|run| run.go_on.as_str())
    }

    /// The terminal is gone: what cannot be written from now on is no failure.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Relaxed);
    }

    /// What a person must do now; said even when quiet, because all waits for it.
    pub fn prompt(&self, words: &str) {
        self.bars.line(words);
    }

    /// What failed, and what to do about it.
    pub fn error_with_hints(&self, message: &ErrorMessage) {
        self.bars.clear();
        self.error(&message.what);
        for hint in &message.hints {
            self.bars.line(&format!("  hint: {hint}"));
        }
    }

    /// What to type next, each a line.
    pub fn next(&self, commands: &[(String, &str)]) {
        self.table("next: ", commands);
    }

    /// Commands and what they do, side by side behind a lead on the first line. A long command
    /// does not push away what the others do.
    pub(crate) fn table(&self, lead: &str, commands: &[(String, &str)]) {
        let lengths = commands.iter().map(|(command, _)| command.chars().count());
        let width = lengths.filter(|length| *length <= TABLE_COLUMN).max().unwrap_or_default();
        let indent = lead.chars().count();
        for (index, (command, why)) in commands.iter().enumerate() {
            let lead = if index == 0 { lead } else { "" };
            self.info(format_args!("{lead:indent$}{command:width$}   {why}"));
        }
    }

    /// One JSON value on stdout.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn json(&self, value: &impl Serialize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let written = serde_json::to_writer(&mut out, value).map_err(io::Error::from);
        let written = written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        if self.hung_up.load(Ordering::Relaxed) { Ok(()) } else { written }
    }

    /// What the check found: the problems as a table, the warnings, the verdict.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn verdict(
        &self,
        wave: &Path,
        verdict: &WaveCheck,
        said: &str,
        readers: &[RecipientRecord],
    ) -> io::Result<()> {
        self.bars.clear();
        if !verdict.problems.is_empty() {
            self.problems(&verdict.problems, verdict.ineligible);
        }
        for wrong in &verdict.mail {
            self.error(format_args!("mail: {}", shown(wrong)));
        }
        for warning in &verdict.warnings {
            self.warn(warning);
        }
        self.info(format_args!(
            "checked {} of {}: {} may get a pass{}{}",
            rows(verdict.rows),
            wave.display(),
            verdict.eligible,
            some(verdict.skipped, "skipped"),
            some(verdict.ineligible, "with problems"),
        ));
        if self.manner.json && !said.is_empty() {
            self.json(&tables::CheckJson::of(verdict, said, readers))?;
        }
        Ok(())
    }

    /// Who will be able to read the passes, for each set of recipients: of many, the first sets,
    /// and of the rest each key that goes by no name of the settings.
    pub fn readers(&self, sets: &[RecipientRecord]) {
        match sets {
            [] => {}
            [all] => self.info(format_args!("sealed to: {}", all.readers())),
            sets => {
                self.info("sealed to, by what the row says:");
                for line in readers(sets, |set, key| set.names.contains_key(key)) {
                    self.info(format_args!("  {line}"));
                }
            }
        }
    }

    /// How a command over a run ended.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn summary(&self, summary: &Summary) -> io::Result<()> {
        self.bars.clear();
        if self.manner.json {
            self.json(summary)?;
        }
        let mut parts = Vec::new();
        if summary.is_empty() {
            parts.push("no pass issued".to_owned());
        }
        for (count, word) in [
            (summary.sealed, "issued and sealed"),
            (summary.delivered, "delivered"),
            (summary.removed, "removed"),
            (summary.waiting(), "waiting"),
            (summary.failed, "failed"),
            (summary.unsettled, "unsettled"),
            (summary.held, "held"),
            (summary.lost, "lost"),
            (summary.skipped, "skipped"),
            (summary.ineligible, "ineligible"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        if let Some(Notices { notices_sent, notices_open }) = summary.notices {
            for (notices, fate) in [(notices_sent, "sent"), (notices_open, "not sent")] {
                if notices > 0 {
                    parts.push(format!("{} {fate}", count(notices, "notice", "notices")));
                }
            }
        }
        let took = Duration::from_secs_f64(summary.elapsed_seconds);
        self.info(format_args!(
            "{}: {} · {} in {}{}",
            rows(summary.rows),
            if parts.is_empty() { "nothing done".to_owned() } else { parts.join(", ") },
            count(summary.requests, "call", "calls"),
            lasting(took),
            some(summary.throttled, "throttled"),
        ));
        Ok(())
    }

    /// That everybody was left out, which the exit code of a run does not tell; said even when
    /// quiet.
    pub fn nobody(&self, ineligible: u64, skipped: u64) {
        let mut why = Vec::new();
        if ineligible > 0 {
            why.push(count(ineligible, "row has problems", "rows have problems"));
        }
        if skipped > 0 {
            let left = [
                "row has a live pass, or belongs to another open run, and is left alone",
                "rows have a live pass, or belong to another open run, and are left alone",
            ];
            why.push(count(skipped, left[0], left[1]));
        }
        self.prompt(&format!("warning: no pass for anybody: {}", why.join(", ")));
    }

    /// What cleanup came to.
    pub fn cleanup(&self, outcome: &CleanupReport) {
        self.bars.clear();
        let passes = count(outcome.removed, "pass", "passes");
        let is_idle = outcome.removed + outcome.already + outcome.left.len() as u64 == 0;
        if outcome.wrong_tenant {
            self.error(
                "none of these people is in the tenant that you are signed in to: it is \
                 probably another tenant; nothing was removed and nothing was purged",
            );
        } else if is_idle && !outcome.interrupted {
            self.info("there was no pass to remove");
        } else {
            let already = match outcome.already {
                0 => None,
                1 => Some("1 was already gone".to_owned()),
                several => Some(format!("{several} were already gone")),
            };
            match (outcome.removed, already) {
                (0, Some(already)) => self.info(format_args!("nothing to remove: {already}")),
                (_, Some(already)) => self.info(format_args!("removed {passes}, {already}")),
                (_, None) => self.info(format_args!("removed {passes}")),
            }
        }
        for (line, upn) in outcome.foreign.iter().take(limits::PROBLEMS_SHOWN) {
            let upn = shown(upn);
            self.warn(format_args!(
                "line {line}, {upn}: has a pass that this run did not issue; it was left alone"
            ));
        }
        let unnamed = || outcome.left.iter().filter(|left| !outcome.reported.contains(&left.line));
        for left in unnamed().take(limits::PROBLEMS_SHOWN) {
            self.error(format_args!(
                "line {}, {}: {}",
                left.line,
                shown(&left.upn),
                shown(&left.why)
            ));
        }
        let more = unnamed().count().saturating_sub(limits::PROBLEMS_SHOWN);
        if more > 0 {
            self.error(format_args!("and {}", count(more as u64, "row more", "rows more")));
        }
        if outcome.removed + outcome.already > 0 && outcome.is_proven() {
            self.info("looked again: none of these passes is left");
        }
        for path in &outcome.unrecorded {
            self.warn(format_args!(
                "{} was left alone, because this run has no record of it; it may hold sealed passes of a process that was killed: look at it, and delete it by hand",
                path.display()
            ));
        }
        for path in &outcome.changed {
            self.warn(format_args!(
                "{} is not as this run wrote it, and was left alone; delete it by hand",
                path.display()
            ));
        }
        if let Some(purged) = outcome.purged.filter(|purged| purged + outcome.files > 0) {
            self.info(format_args!(
                "purged {} and {}",
                count(purged, "sealed copy", "sealed copies"),
                count(outcome.files, "handoff file", "handoff files")
            ));
        }
    }

    /// Where one row stands, as a line of a table.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn row(&self, out: &mut impl Write, row: &RowStatus) -> io::Result<()> {
        let live = row.live.map(|live| format!("{live:?}").to_lowercase()).unwrap_or_default();
        let due = row.notice.as_ref().is_some_and(|notice| notice.state == NoticeState::Due);
        let why = row.reason.as_deref().or(due.then_some("its notice is not sent yet"));
        let words = format!(
            "{:>6}  {:<10}  {:<8}  {:<40}  {}",
            row.row,
            row.state,
            live,
            shown(&row.user_principal_name),
            why.map(shown).unwrap_or_default()
        );
        writeln!(out, "{}", words.trim_end())
    }

    /// The head of that table.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn row_head(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:>6}  {:<10}  {:<8}  {:<40}  WHY", "LINE", "STATE", "LIVE", "USER")
    }

    /// The runs on this machine.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn runs(&self, runs: &[Listed]) -> io::Result<()> {
        if self.manner.json {
            return self.json(&tables::runs(runs));
        }
        if runs.is_empty() {
            self.info("no runs on this machine yet");
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", tables::runs_table(runs))
    }

    /// A row that went wrong. After [`limits::PROBLEMS_SHOWN`] of them, `status` tells more.
    fn wrong(&self, words: impl fmt::Display) {
        match self.wrong.fetch_add(1, Ordering::Relaxed) {
            named if named < limits::PROBLEMS_SHOWN => self.error(words),
            limits::PROBLEMS_SHOWN => match self.at_work.get() {
                Some(AtWork { status, .. }) => {
                    self.error(format_args!("more rows went wrong; {status} shows them all"));
                }
                None => self.error("more rows went wrong"),
            },
            _ => {}
        }
    }

    /// Rows with problems, the first of them as a table on stderr.
    fn problems(&self, problems: &[RowProblem], all: u64) {
        let table = tables::problems(&problems[..problems.len().min(limits::PROBLEMS_SHOWN)]);
        self.bars.lines(&table);
        let more = all.saturating_sub(limits::PROBLEMS_SHOWN as u64);
        if more > 0 {
            self.bars.line(&format!("… and {more} more; --rejects FILE writes them all"));
        }
    }
}

impl Progress for Report {
    fn report(&self, event: ProgressEvent) {
        match event {
            ProgressEvent::Began { activity: doing, total } => self.bars.begin(doing, total),
            ProgressEvent::Did { doing, rows } => self.bars.advance(doing, rows),
            ProgressEvent::Forecast { doing, per_second, holding } => {
                self.bars.foresee(doing, per_second, holding);
            }
            ProgressEvent::Ended { doing } => self.bars.end(doing),
            ProgressEvent::RowFailed { line, upn, why } => self.wrong(row(line, &upn, &why)),
            ProgressEvent::RowHeld { line, upn, why } => {
                self.wrong(row(line, &upn, &format!("held: {why}")));
            }
            ProgressEvent::RowLost { line, upn, why } => {
                self.wrong(row(line, &upn, &format!("lost: {why}")));
            }
            ProgressEvent::LookingAgain { doing, rows, until } => {
                self.info(looks_again(doing, rows, until));
            }
            ProgressEvent::AnswerLost { line, upn, why, settle_after } => self.warn(row(
                line,
                &upn,
                &format!("{why}; it will be settled in {}", lasting(settle_after)),
            )),
            ProgressEvent::Outage { why } => {
                self.info(format_args!(
                    "Microsoft Graph cannot be reached ({}); waiting",
                    shown(&why)
                ));
            }
            ProgressEvent::OutageOver => self.info("Microsoft Graph answers again"),
            ProgressEvent::MailRetrying { why } => {
                self.info(format_args!("mail does not go out ({}); trying again", shown(&why)));
            }
            ProgressEvent::Stopping { in_flight } => self.info(format_args!(
                "no new requests are begun; {} under way or waiting for a turn",
                count(in_flight, "row was", "rows were")
            )),
        }
    }
}

/// What is waited for, and until when, as a clock on the wall shows it.
fn looks_again(doing: Activity, rows: u64, until: jiff::Timestamp) -> String {
    let zone = jiff::tz::TimeZone::system();
    let until = until.to_zoned(zone).strftime("%H:%M:%S").to_string();
    let why = match doing {
        Activity::Remove => "is not yet proven to be gone",
        _ => "is not listed yet",
    };
    let passes = match rows {
        1 => format!("1 pass {why} and is"),
        _ => format!("{rows} passes {} and are", why.replacen("is", "are", 1)),
    };
    format!("{passes} looked at again until {until}: Microsoft's lists may lag")
}

/// Who can read what is sealed to these sets: the first of them by what they are called, and every
/// further key that is not `known` by a name, once.
pub(crate) fn readers(
    sets: &[RecipientRecord],
    known: impl Fn(&RecipientRecord, &str) -> bool,
) -> Vec<String> {
    let (shown_sets, rest) = sets.split_at(sets.len().min(SHOWN_SETS));
    let mut lines: Vec<String> =
        shown_sets.iter().map(|set| format!("{}: {}", set.title(), set.readers())).collect();
    if rest.is_empty() {
        return lines;
    }
    let more = count(rest.len() as u64, "more set of recipients", "more sets of recipients");
    let mut seen: HashSet<&String> = shown_sets.iter().flat_map(|set| &set.keys).collect();
    let mut unnamed = Vec::new();
    for set in rest {
        let unseen = set.keys.iter().filter(|key| seen.insert(*key));
        unnamed.extend(unseen.filter(|key| !known(set, key)).map(|key| set.reader(key)));
    }
    lines.push(match unnamed.len() {
        0 => format!("and {more}"),
        keys => {
            let keys = count(keys as u64, "further key", "further keys");
            format!("and {more}, with {keys}: {}", unnamed.join(", "))
        }
    });
    lines
}

/// A duration as people say it: `850 ms`, `12.3 s`, `4 min 10 s`, `2 h 5 min`.
#[must_use]
pub fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..=59 => format!("{:.1} s", time.as_secs_f64()),
        60..=3599 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A count with its noun.
#[must_use]
pub fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn rows(rows: u64) -> String {
    count(rows, "row", "rows")
}

fn some(count: u64, word: &str) -> String {
    if count == 0 { String::new() } else { format!(", {count} {word}") }
}

fn row(line: Line, upn: &str, why: &str) -> String {
    format!("line {line}, {}: {}", shown(upn), shown(why))
}

/// The states in which a run's counts are told.
pub(crate) const TOLD: [Standing; 12] = [
    Standing::Checked,
    Standing::Intent,
    Standing::Unsettled,
    Standing::Held,
    Standing::Sealed,
    Standing::Mailing,
    Standing::Delivered,
    Standing::Lost,
    Standing::Removed,
    Standing::Failed,
    Standing::Skipped,
    Standing::Ineligible,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_say_them() {
        for (time, said) in [
            (Duration::from_millis(850), "850 ms"),
            (Duration::from_millis(12_340), "12.3 s"),
            (Duration::from_mins(5), "5 min"),
            (Duration::from_secs(250), "4 min 10 s"),
            (Duration::from_mins(125), "2 h 5 min"),
        ] {
            assert_eq!(lasting(time), said);
        }
    }
}
