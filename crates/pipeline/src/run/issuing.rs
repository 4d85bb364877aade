//! Promises that a run issues to every row that may get a pass, confirms what it sealed, and then
//! hands it over: from a fresh ledger or from any state that an earlier process left.
//!
//! After an error or a stop, nothing new begins, and whatever is in flight is finished and
//! committed.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::time::Instant;

use super::Session;
use super::delivering::Mailing;
use super::handoff::hand_over;
use super::inherited::{lost_attempts, unproven_rows, verify_all};
use super::intake::{self, IntakeError};
use super::pending::{Look, ScheduledLook};
use super::row_task::IssueContext;
use super::scheduler::Scheduler;
use super::second_look::{FinalLook, Looked, SecondLook};
use crate::deliver::MailStopped;
use crate::seal::{BookError, HandoverError, RecipientBook, Sealer};
use crate::stop::StopSignal;
use crate::worker::{RunError, Worker};
use tapwave_core::clock::earlier;
use tapwave_core::limits;
use tapwave_core::progress::Activity;
use tapwave_graph::limiter::Budget;
use tapwave_ledger::{Event, Ledger, LedgerError, Standing};
use tapwave_seal::{RecipientSet, Spool};

pub use super::inherited::{is_doubted, verify};

/// How issuing ended.
#[derive(Debug)]
pub struct Issuance {
    /// Why it ended early, if it did.
    pub error: Option<RunError>,
    /// Whether the operator stopped it.
    pub interrupted: bool,
    /// Why mailing ended early, if it did.
    pub mail: Option<MailStopped>,
    /// The handoff files written now.
    pub handoffs: Vec<PathBuf>,
    pub looked: Looked,
    /// Why the handoff is not whole, if it is not. The ledger has every pass all the same.
    pub handover: Option<HandoverError>,
}

/// Why issuing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum IssuingError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("this run was closed by cleanup, so nothing more is issued from it")]
    Closed,
}

/// Issues to every row of a fresh ledger and, given `mailing`, mails each pass.
pub async fn run(
    ledger: &Ledger,
    sets: Vec<Arc<RecipientSet>>,
    mailing: Option<&Mailing>,
    session: &Session,
    look: FinalLook,
) -> Result<Issuance, IssuingError> {
    session.stop.begin_work();
    let context = IssueContext::open(ledger, sets, mailing, session, look)?;
    Ok(context.work(Vec::new()).await)
}

/// Carries a run on from any state: reconciles lost attempts and held rows, tries failed rows
/// again, and issues the rest.
pub async fn resume(
    ledger: &Ledger,
    mailing: Option<&Mailing>,
    session: &Session,
    look: FinalLook,
) -> Result<Issuance, IssuingError> {
    session.stop.begin_work();
    if ledger.closed().await?.is_some() {
        return Err(IssuingError::Closed);
    }
    let sets = RecipientBook::restore(&ledger.about().recipients, &session.prompts)?;
    // Old intents are judged by Graph's clock, which its first answer tells.
    session.graph.policy().await.map_err(RunError::from)?;
    let started = session.clock.instant();
    let mut context = IssueContext::open(ledger, sets, mailing, session, look)?;
    let now = session.graph.time().await.map_err(RunError::from)?;
    if look == FinalLook::Always {
        // Graph's clock counts whole seconds, too few to tell which of two looks came first.
        ledger.forget_looks().await?;
    }
    context.since = Some(earlier(now, limits::LOOK_GOOD_FOR));
    let looks = context.take_over(started).await?;
    intake::check_again(ledger, session).await?;
    Ok(context.work(looks).await)
}

impl<'a> IssueContext<'a> {
    fn open(
        ledger: &Ledger,
        sets: Vec<Arc<RecipientSet>>,
        mailing: Option<&'a Mailing>,
        session: &'a Session,
        look: FinalLook,
    ) -> Result<Self, IssuingError> {
        let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
        // This process holds the lock: an unfinished file is left from one that died.
        tapwave_seal::remove_unfinished(&folder).map_err(HandoverError::from)?;
        let spool = Spool::create(&folder).map_err(HandoverError::from)?;
        let (stop_switch, stop) = StopSignal::new();
        Ok(Self {
            worker: Worker { stop, ..session.worker(ledger) },
            sealer: Sealer::new(sets, spool),
            mailing,
            session,
            look,
            since: None,
            unreached_since: Cell::default(),
            stop_switch,
        })
    }

    /// Prepares the rows that an earlier process left; returns those to reconcile, and when.
    async fn take_over(&self, started: Instant) -> Result<Vec<ScheduledLook>, IssuingError> {
        let ledger = &self.worker.ledger;
        let mut looks = lost_attempts(&self.worker, started).await?;
        for row in unproven_rows(ledger, &[Standing::Held, Standing::Lost]).await? {
            let (line, at, purpose) = (row.line, started, Look::Reconcile);
            looks.push(ScheduledLook { line, at, purpose });
        }
        // All rows may have failed, where a policy was switched off half-way: one commit a page.
        let mut pages = ledger.pages(&[Standing::Failed], limits::ROWS_PER_READ);
        while let Some(rows) = pages.next().await? {
            try_join_all(rows.iter().map(|row| ledger.record(row.line, Event::Retried))).await?;
        }
        Ok(looks)
    }

    async fn work(self, looks: Vec<ScheduledLook>) -> Issuance {
        let mut mail = None;
        let mut error = self.issue_all(looks, &mut mail).await.err();
        let looked = match self.look_again(error.is_some()).await {
            Ok(looked) => looked,
            Err(failed) => {
                let why = failed.to_string();
                error.get_or_insert(failed);
                self.not_looked(why).await
            }
        };
        let interrupted = self.session.stop.is_requested();
        let Self { worker, sealer, session, .. } = self;
        let mut handoffs = Vec::new();
        if error.is_some() && worker.ledger.add_traffic(0, 0).await.is_err() {
            // A ledger that takes no more cannot say which file holds what. The next process
            // confirms the last seals and hands them over.
            return Issuance { error, interrupted, mail, handoffs, looked, handover: None };
        }
        session.begin(Activity::Handoff, None);
        for line in &looked.missed {
            sealer.forget(*line);
        }
        let kept_out = looked.missed.iter().copied().collect();
        let handover = hand_over(&worker.ledger, sealer, &kept_out, &mut handoffs).await.err();
        session.end(Activity::Handoff);
        Issuance { error, interrupted, mail, handoffs, looked, handover }
    }

    async fn issue_all(
        &self,
        looks: Vec<ScheduledLook>,
        mail: &mut Option<MailStopped>,
    ) -> Result<(), RunError> {
        let session = self.session;
        let unconfirmed = verify_all(&self.worker, session).await?;
        let counts = self.worker.ledger.counts().await?;
        let total = counts.of(Standing::Checked) + (looks.len() + unconfirmed.len()) as u64;
        session.begin(Activity::Issue, Some(total));
        let mut scheduler = Scheduler::new(self, &looks, total);
        for look in looks {
            scheduler.schedule(look);
        }
        for line in unconfirmed {
            scheduler.look_later(line, Look::VerifyInherited);
        }
        scheduler.queue_mail().await?;
        let result = scheduler.run(mail).await;
        // Later requests on this budget are no part of this wave.
        self.worker.graph.limiter().announce(Budget::PassWrites, None);
        session.end(Activity::Issue);
        result
    }

    /// The second look. After an error a later process does it: nothing can be asked of Graph or
    /// written to the ledger, or a look would see what somebody is about to repair, such as a
    /// policy that is switched off and disables every pass.
    async fn look_again(&self, failed: bool) -> Result<Looked, RunError> {
        if failed {
            return Ok(self.not_looked("the run stopped before".to_owned()).await);
        }
        let mut look = SecondLook::new(&self.worker, self.session, self.look, self.since);
        look.finish(|line| self.sealer.forget(line)).await
    }

    async fn not_looked(&self, why: String) -> Looked {
        match self.worker.ledger.waiting_for_look(self.since).await {
            Ok(0) => Looked::default(),
            Ok(unseen) => Looked { unseen, missed: Vec::new(), why: Some(why) },
            Err(error) => Looked { why: Some(error.to_string()), ..Looked::default() },
        }
    }
}
