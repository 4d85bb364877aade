//! Promises that a whole wave is read and checked before anything is issued, and that all problems
//! are reported at once.
//!
//! Rows go from the file into a ledger draft and from there through the check, some hundred at a
//! time, so that memory does not grow with the wave.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use zeroize::Zeroize;

use super::Session;
use crate::check::{Check, CheckError, Finding, Problem, Subject, Warning};
use crate::deliver::{LetterWriter, Preview};
use crate::seal::{BookError, RecipientBook};
use crate::wave::{
    self, BadRow, Header, Rejects, Row, RowOptions, WaveError, WaveItem, WaveReader,
};
use tapwave_core::clock::{later, span};
use tapwave_core::exit::Exit;
use tapwave_core::ids::{Line, RunId, Upn, UserId};
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};
use tapwave_core::shown::plain;
use tapwave_ledger::{
    About, Asked, Channel, ClaimsError, Draft, Event, Existing, Ledger, LedgerError, NewBadRow,
    NewRow, PolicyRecord, RowRecord, RunOptions, Standing, WaveAbout, create_private,
};
use tapwave_seal::holds_secret_key;

const UPN_COLUMN: &str = "userPrincipalName";

#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("failed to read {path}: {source}")]
    Wave { path: PathBuf, source: WaveError },
    #[error("failed to open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("failed to write the rejected rows to {path}: {source}")]
    Rejects { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    #[error(
        "{people} of this run's people are claimed by run {run}, which is still open; finish that run with resume, or close it with cleanup"
    )]
    Claimed { people: usize, run: String },
    #[error("interrupted while checking; nothing was changed")]
    Interrupted,
}

impl From<tapwave_graph::GraphError> for IntakeError {
    fn from(error: tapwave_graph::GraphError) -> Self {
        Self::Check(CheckError::Graph(error))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProblem {
    pub line: Line,
    pub upn: String,
    pub reason: String,
}

#[derive(Debug)]
pub struct WaveCheck {
    pub rows: u64,
    pub eligible: u64,
    /// Rows with a live pass that `--existing skip` leaves out.
    pub skipped: u64,
    pub ineligible: u64,
    pub problems: Vec<RowProblem>,
    pub warnings: Vec<Warning>,
    /// Faults of the mail as a whole.
    pub mail: Vec<String>,
    /// Whether a password, the sender, a certificate or a proxy keeps mail from going out.
    pub bars_us: bool,
    pub policy: PolicyRecord,
    pub header: Header,
    pub digest: String,
    pub sets: usize,
}

impl WaveCheck {
    pub const fn exit(&self) -> Exit {
        if self.bars_us { Exit::Access } else { Exit::Problems }
    }
}

/// Reads a wave into a draft, faulty rows too, as ineligible.
pub fn read(
    path: &Path,
    zone: Option<TimeZone>,
    book: &mut RecipientBook,
    draft: &mut Draft,
    session: &Session,
) -> Result<wave::WaveSummary, IntakeError> {
    let file =
        File::open(path).map_err(|source| IntakeError::Open { path: path.to_owned(), source })?;
    let unread = |source| IntakeError::Wave { path: path.to_owned(), source };
    let defaults = wave::Defaults { time_zone: zone };
    let mut reader = WaveReader::open(file, defaults).map_err(unread)?;
    let header = reader.header().clone();
    session.begin(Activity::Read, None);
    for found in reader.by_ref() {
        if session.stop.is_requested() {
            return Err(IntakeError::Interrupted);
        }
        match found.map_err(unread)? {
            WaveItem::Row(row) => add_row(row, book, draft)?,
            WaveItem::Bad(bad) => draft.add_bad(bad_row(bad, &header))?,
        }
        session.advance(Activity::Read, 1);
    }
    session.end(Activity::Read);
    reader.finish().map_err(unread)
}

pub struct MailCheck<'a> {
    pub writer: &'a LetterWriter,
    /// Whether issuing does not wait for mail, so that passes age.
    pub ahead: bool,
    /// Whether the last reader may get less than [`limits::LEAST_USABLE`].
    pub allow_late: bool,
}

/// Which of these people another open run has claimed, and its name. If the caller means to issue,
/// this claims the others.
pub type Claim<'a> = dyn FnMut(&[UserId]) -> Result<HashMap<UserId, String>, ClaimsError> + 'a;

/// Rejects people whom another open run has claimed.
fn reject_claimed(
    mut findings: Vec<(Line, Finding)>,
    claim: &mut Claim<'_>,
    existing: Existing,
) -> Result<Vec<(Line, Finding)>, IntakeError> {
    let user = |finding: &Finding| match finding {
        Finding::Eligible(eligible) => Some(eligible.user),
        _ => None,
    };
    let users: Vec<UserId> = findings.iter().filter_map(|(_, finding)| user(finding)).collect();
    if users.is_empty() {
        return Ok(findings);
    }
    let claimed = claim(&users)?;
    for (_, finding) in &mut findings {
        if let Some(run) = user(finding).and_then(|user| claimed.get(&user)) {
            let run = run.clone();
            *finding = match existing {
                Existing::Skip => Finding::Claimed { run },
                Existing::Fail | Existing::Replace => {
                    Finding::Ineligible(vec![Problem::Claimed { run }])
                }
            };
        }
    }
    Ok(findings)
}

/// Asks Graph about every row of a draft and records the findings; given `mail`, also renders
/// each row's messages with a dummy code.
pub async fn check(
    wave: wave::WaveSummary,
    options: &RunOptions,
    book: &mut RecipientBook,
    draft: &mut Draft,
    session: &Session,
    claim: &mut Claim<'_>,
    mail: Option<&MailCheck<'_>>,
) -> Result<WaveCheck, IntakeError> {
    let listed = draft.counts()?.of(Standing::Listed);
    let mut check =
        Check::prepare(&session.graph, options, listed, session.may_read_groups).await?;
    session.begin(Activity::Check, Some(listed));
    let messages = mail.map(|mail| MessageChecks::new(mail, session.clock.now()));
    let mut rows = DraftRows {
        book,
        draft,
        claim,
        existing: options.existing,
        header: &wave.header,
        messages,
        after: None,
        read: VecDeque::new(),
    };
    check_pages(&mut check, &mut rows, session).await?;
    let messages = rows.messages;
    session.end(Activity::Check);
    let mail = messages.map(MessageChecks::faults).unwrap_or_default();
    summarise(&check, wave, book, draft, mail, session)
}

/// Rows to check, and where what is found of them is recorded.
trait RowsToCheck {
    /// The next page; none after the last.
    async fn read(&mut self) -> Result<Option<Vec<Subject>>, IntakeError>;
    /// What was found of the page that was read longest ago.
    async fn record(&mut self, findings: Vec<(Line, Finding)>) -> Result<(), IntakeError>;
}

/// Checks page after page. People are looked up in the order of the wave; meanwhile the passes of
/// the pages before are read side by side.
async fn check_pages(
    check: &mut Check,
    rows: &mut impl RowsToCheck,
    session: &Session,
) -> Result<(), IntakeError> {
    let work = async {
        let (mut reading, mut read) = (FuturesOrdered::new(), VecDeque::new());
        let mut is_over = false;
        loop {
            if !is_over && reading.len() + read.len() < limits::PAGES_IN_FLIGHT {
                let Some(subjects) = rows.read().await? else {
                    is_over = true;
                    continue;
                };
                let known = {
                    let mut known = std::pin::pin!(check.look_up(&session.graph, subjects));
                    loop {
                        tokio::select! {
                            biased;
                            known = &mut known => break known?,
                            Some(page) = reading.next() => read.push_back(page?),
                        }
                    }
                };
                reading.push_back(check.read_passes(&session.graph, known));
            } else {
                let page = match read.pop_front() {
                    Some(page) => page,
                    None => match reading.next().await {
                        Some(page) => page?,
                        None => return Ok(()),
                    },
                };
                let findings = check.conclude(page, &session.issuers);
                session.advance(Activity::Check, findings.len() as u64);
                rows.record(findings).await?;
            }
        }
    };
    tokio::select! {
        biased;
        () = session.stop.requested() => Err(IntakeError::Interrupted),
        done = work => done,
    }
}

/// The rows of a wave that was read.
struct DraftRows<'a, 'b> {
    book: &'a mut RecipientBook,
    draft: &'a mut Draft,
    claim: &'a mut Claim<'b>,
    existing: Existing,
    header: &'a Header,
    messages: Option<MessageChecks<'a>>,
    after: Option<Line>,
    /// Of each page that is being checked, the line before it and its size.
    read: VecDeque<(Option<Line>, usize)>,
}

impl RowsToCheck for DraftRows<'_, '_> {
    async fn read(&mut self) -> Result<Option<Vec<Subject>>, IntakeError> {
        let rows = self.draft.rows(&[Standing::Listed], self.after, limits::ROWS_PER_CHECK)?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.read.push_back((self.after, rows.len()));
        self.after = Some(last.line);
        let subjects: Result<Vec<Subject>, _> =
            rows.iter().map(|row| subject(row, self.book)).collect();
        Ok(Some(subjects?))
    }

    async fn record(&mut self, findings: Vec<(Line, Finding)>) -> Result<(), IntakeError> {
        for (line, finding) in reject_claimed(findings, self.claim, self.existing)? {
            self.draft.record(line, &event(finding))?;
        }
        let page = self.read.pop_front();
        if let Some((messages, (before, size))) = self.messages.as_mut().zip(page) {
            messages.check(self.header, self.draft, before, size)?;
        }
        Ok(())
    }
}

/// The rows of a run that wait for their pass.
struct WaitingRows<'a> {
    ledger: &'a Ledger,
    session: &'a Session,
    after: Option<Line>,
    /// The pages that are being checked.
    read: VecDeque<Vec<RowRecord>>,
}

impl RowsToCheck for WaitingRows<'_> {
    async fn read(&mut self) -> Result<Option<Vec<Subject>>, IntakeError> {
        let states = [Standing::Checked];
        let rows = self.ledger.rows(&states, self.after, limits::ROWS_PER_CHECK).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        self.after = Some(last.line);
        let subjects = rows.iter().map(subject_again).collect::<Result<Vec<Subject>, _>>()?;
        self.read.push_back(rows);
        Ok(Some(subjects))
    }

    async fn record(&mut self, findings: Vec<(Line, Finding)>) -> Result<(), IntakeError> {
        let rows = self.read.pop_front().unwrap_or_default();
        let findings = reject_other_accounts(&rows, findings)?;
        for (row, (line, finding)) in rows.iter().zip(&findings) {
            if let Finding::Ineligible(problems) = finding {
                let why: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let (line, upn, why) = (*line, row.upn.clone(), why.join("; "));
                self.session.report(ProgressEvent::RowFailed { line, upn, why });
            }
        }
        let records =
            findings.into_iter().map(|(line, finding)| self.ledger.record(line, event(finding)));
        futures::future::try_join_all(records).await?;
        Ok(())
    }
}

/// From here on, a resume needs the ledger alone.
pub fn publish(
    draft: Draft,
    verdict: &WaveCheck,
    wave: &Path,
    run: &RunAbout,
    book: &RecipientBook,
    now: Timestamp,
) -> Result<Ledger, LedgerError> {
    let about = About {
        id: run.id,
        name: run.name.clone(),
        created: now,
        tapwave_version: env!("CARGO_PKG_VERSION").to_owned(),
        wave: WaveAbout {
            // The same from every folder.
            path: std::path::absolute(wave)
                .unwrap_or_else(|_| wave.to_owned())
                .display()
                .to_string(),
            digest: verdict.digest.clone(),
            header_json: json(&verdict.header),
            rows: verdict.rows,
        },
        tenant: run.tenant.clone(),
        graph_url: run.graph_url.clone(),
        options: run.options.clone(),
        recipients: book.records(),
        policy: verdict.policy,
        checked_at: now,
    };
    draft.publish(&about)
}

#[derive(Debug, Clone)]
pub struct RunAbout {
    pub id: RunId,
    pub name: String,
    pub tenant: Option<String>,
    pub graph_url: String,
    pub options: RunOptions,
}

/// Checks the rows that wait again, if the last check is old.
pub async fn check_again(ledger: &Ledger, session: &Session) -> Result<(), IntakeError> {
    let age = tapwave_core::clock::span(ledger.checked_at().await?, session.clock.now());
    let waiting = ledger.counts().await?.of(Standing::Checked);
    if waiting == 0 || age <= limits::CHECK_GOOD_FOR {
        return Ok(());
    }
    let options = &ledger.about().options;
    let may_read_groups = session.may_read_groups;
    let mut check = Check::prepare(&session.graph, options, waiting, may_read_groups).await?;
    session.begin(Activity::Check, Some(waiting));
    let mut rows = WaitingRows { ledger, session, after: None, read: VecDeque::new() };
    check_pages(&mut check, &mut rows, session).await?;
    session.end(Activity::Check);
    ledger.set_checked_at(session.clock.now()).await?;
    Ok(())
}

/// Writes the rows with problems to a new CSV with a reason column.
pub fn write_rejects(path: &Path, header: &Header, draft: &Draft) -> Result<u64, IntakeError> {
    let unwritten = |source| IntakeError::Rejects { path: path.to_owned(), source };
    let file = create_private(path).map_err(unwritten)?;
    let mut rejects = Rejects::new(BufWriter::new(file), header).map_err(unwritten)?;
    let mut written = 0;
    for rows in draft.pages(&[Standing::Ineligible], limits::ROWS_PER_READ) {
        for row in &rows? {
            let reason = row.reason.as_deref().unwrap_or_default();
            rejects.add(&row.cells, reason).map_err(unwritten)?;
            written += 1;
        }
    }
    rejects.finish().and_then(|mut out| out.flush()).map_err(unwritten)?;
    Ok(written)
}

fn add_row(row: Row, book: &mut RecipientBook, draft: &mut Draft) -> Result<(), IntakeError> {
    // Recipients are resolved now, so that a wrong label is reported with all other faults.
    let unreadable = match book.set_for(row.wanted.recipient.as_deref()) {
        Ok(_) => None,
        Err(error @ BookError::TooMany) => return Err(error.into()),
        // The default set: no row can correct it.
        Err(error @ BookError::Set(_)) if row.wanted.recipient.is_none() => {
            return Err(error.into());
        }
        Err(error @ BookError::Nobody) => Some(error.to_string()),
        Err(error) => Some(format!("column recipient: {error}")),
    };
    let upn = row.upn.as_str().to_owned();
    if let Some(problem) = unreadable {
        let problems = vec![problem];
        let cells = without_secrets(row.cells);
        draft.add_bad(NewBadRow { line: row.line, upn, cells, problems })?;
    } else {
        let wanted_json = json(&row.wanted);
        draft.add_row(&NewRow { line: row.line, upn, cells: row.cells, wanted_json })?;
    }
    Ok(())
}

fn bad_row(bad: BadRow, header: &Header) -> NewBadRow {
    let text = |fault: &wave::RowFault| match &fault.column {
        Some(column) => format!("column {}: {}", plain(column), fault.message),
        None => fault.message.clone(),
    };
    let problems = bad.faults.iter().map(text).collect();
    let upn = header.value(&bad.cells, UPN_COLUMN).map(plain).unwrap_or_default();
    NewBadRow { line: bad.line, upn, cells: without_secrets(bad.cells), problems }
}

/// A private key in the wave must reach neither the ledger nor the rejected rows.
fn without_secrets(mut cells: Vec<String>) -> Vec<String> {
    for cell in cells.iter_mut().filter(|cell| holds_secret_key(cell)) {
        cell.zeroize();
        cell.push_str("(a private key)");
    }
    cells
}

fn subject(row: &RowRecord, book: &mut RecipientBook) -> Result<Subject, IntakeError> {
    let wanted = wanted(row)?;
    let set = book.set_for(wanted.recipient.as_deref())?;
    Ok(Subject { line: row.line, upn: upn(row)?, wanted, set, untried: true })
}

/// A name must still belong to the same account, to which the run's passes and claims belong.
fn reject_other_accounts(
    rows: &[RowRecord],
    mut findings: Vec<(Line, Finding)>,
) -> Result<Vec<(Line, Finding)>, LedgerError> {
    for (row, (_, finding)) in rows.iter().zip(&mut findings) {
        let user = row.person()?.user;
        if matches!(finding, Finding::Eligible(found) if found.user != user) {
            *finding = Finding::Ineligible(vec![Problem::OtherAccount]);
        }
    }
    Ok(findings)
}

fn subject_again(row: &RowRecord) -> Result<Subject, LedgerError> {
    Ok(Subject {
        line: row.line,
        upn: upn(row)?,
        wanted: wanted(row)?,
        set: row.person()?.set,
        untried: row.is_untried(),
    })
}

fn upn(row: &RowRecord) -> Result<Upn, LedgerError> {
    row.upn.parse().map_err(|_| row.lacks("its userPrincipalName cannot be read"))
}

fn wanted(row: &RowRecord) -> Result<RowOptions, LedgerError> {
    serde_json::from_str(&row.wanted_json)
        .map_err(|_| row.lacks("what the row asks for cannot be read"))
}

fn event(finding: Finding) -> Event {
    match finding {
        Finding::Eligible(eligible) => Event::Checked(eligible),
        Finding::Ineligible(problems) => {
            Event::Ineligible { problems: problems.iter().map(ToString::to_string).collect() }
        }
        Finding::Claimed { run } => Event::Skipped { why: Problem::Claimed { run }.to_string() },
        Finding::HasPass(method) => {
            Event::Skipped { why: format!("has a live pass already (method {method})") }
        }
    }
}

fn summarise(
    check: &Check,
    wave: wave::WaveSummary,
    book: &RecipientBook,
    draft: &Draft,
    mail: Vec<String>,
    session: &Session,
) -> Result<WaveCheck, IntakeError> {
    let counts = draft.counts()?;
    let mut problems = Vec::new();
    let pages = draft.pages(&[Standing::Ineligible], limits::ROWS_PER_READ);
    for rows in pages.take(limits::MAX_PROBLEMS.div_ceil(limits::ROWS_PER_READ)) {
        problems.extend(rows?.into_iter().map(|row| RowProblem {
            line: row.line,
            upn: row.upn,
            reason: row.reason.unwrap_or_default(),
        }));
    }
    Ok(WaveCheck {
        rows: wave.rows,
        eligible: counts.of(Standing::Checked),
        skipped: counts.of(Standing::Skipped),
        ineligible: counts.of(Standing::Ineligible),
        problems,
        warnings: check.warnings(&session.graph),
        mail,
        bars_us: false,
        policy: check.policy(),
        header: wave.header,
        digest: wave.digest,
        sets: book.records().len(),
    })
}

/// Renders every message before any pass exists, and computes when the last one is sent.
struct MessageChecks<'a> {
    mail: &'a MailCheck<'a>,
    now: Timestamp,
    mails: u64,
    least: Option<std::time::Duration>,
    /// The mails and languages whose template was checked.
    checked: BTreeSet<(&'static str, String)>,
    faults: Vec<String>,
}

impl<'a> MessageChecks<'a> {
    fn new(mail: &'a MailCheck<'a>, now: Timestamp) -> Self {
        Self { mail, now, mails: 0, least: None, checked: BTreeSet::new(), faults: Vec::new() }
    }

    /// Renders the messages of the eligible rows among the next `most`.
    fn check(
        &mut self,
        header: &Header,
        draft: &mut Draft,
        after: Option<Line>,
        most: usize,
    ) -> Result<(), IntakeError> {
        for row in draft.rows(&[Standing::Checked], after, most)? {
            match self.mail.writer.preview(&row, header, self.now) {
                Err(error) => {
                    let problem = Problem::Letter { why: error.to_string() };
                    draft.record(row.line, &event(Finding::Ineligible(vec![problem])))?;
                }
                Ok(letters) => {
                    self.add_time(row.person()?.asked, letters.len() as u64);
                    for Preview { channel, letter, .. } in letters {
                        self.check_template(&row, header, channel, letter.locale());
                    }
                }
            }
        }
        Ok(())
    }

    fn check_template(&mut self, row: &RowRecord, header: &Header, channel: Channel, locale: &str) {
        if !self.checked.insert((channel.name(), locale.to_owned())) {
            return;
        }
        let found = self.mail.writer.faults(row, header, channel, locale, self.now);
        let faults = found.unwrap_or_default().into_iter().map(|fault| fault.to_string());
        self.faults.extend(faults);
    }

    /// Accounts for the time that the readers of this row have, if mail leaves in the wave's order
    /// at its full rate.
    fn add_time(&mut self, asked: &Asked, mails: u64) {
        self.mails += mails;
        let lifetime = std::time::Duration::from_secs(u64::from(asked.lifetime_minutes) * 60);
        let mailed = later(self.now, self.sending_time());
        let begins = match asked.start {
            Some(start) => start,
            None if self.mail.ahead => self.now,
            None => mailed,
        };
        let left = span(mailed.max(begins), later(begins, lifetime));
        self.least = Some(self.least.map_or(left, |least| least.min(left)));
    }

    fn sending_time(&self) -> std::time::Duration {
        let rate = u64::from(self.mail.writer.plan.max_per_minute.max(1));
        std::time::Duration::from_secs(self.mails * 60 / rate)
    }

    fn faults(self) -> Vec<String> {
        let mut faults = self.faults.clone();
        let late = self.least.filter(|left| *left < limits::LEAST_USABLE);
        if let Some(left) = late.filter(|_| !self.mail.allow_late) {
            faults.push(format!(
                "{} mails at {} a minute take {} min, so the last reader would get {} usable min, \
                 less than {}; raise --lifetime or max_per_minute, split the wave, or give \
                 --allow-late",
                self.mails,
                self.mail.writer.plan.max_per_minute,
                self.sending_time().as_secs().div_ceil(60),
                left.as_secs() / 60,
                limits::LEAST_USABLE.as_secs() / 60,
            ));
        }
        faults
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("these shapes have string keys and finite numbers only")
}
