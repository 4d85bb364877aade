//! Promises that whatever breaks, no pass is lost, issued twice, or dead: thousands of short
//! stories under virtual time, each from one seed, judged by the simulated tenant's own log.
//!
//! `TAPWAVE_SEED=n` tells one story again, `TAPWAVE_SEEDS=count` tells so many; with
//! `TAPWAVE_LAGS=1`, in a tenant that also misleads about what there is. All that is
//! drawn comes from the seed; how writes fall into groups is the machine's affair, so that a
//! story killed at the n-th poll may end a moment earlier or later the next time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use tapwave_core::clock::Clock;
use tapwave_core::ids::RunId;
use tapwave_core::progress::NullProgress;
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Limiter, LimiterOptions};
use tapwave_ledger::{Access, Draft, Failpoint, Ledger, LedgerError, RunFolder, Standing};
use tapwave_pipeline::run::cleanup::CleanupReport;
use tapwave_pipeline::run::intake::{self, RunAbout};
use tapwave_pipeline::run::second_look::FinalLook;
use tapwave_pipeline::run::{Session, cleanup, issuing};
use tapwave_pipeline::seal::RecipientBook;
use tapwave_pipeline::stop::{StopSignal, StopSwitch};
use tapwave_seal::{NewIdentity, NoPrompts, Prompts, keygen};
use tapwave_simulator::{InMemory, LogEntry, PassEvent};
use tempfile::TempDir;

mod judge;
mod odds;
mod witness;

use judge::Judge;
use odds::{CleansUp, End, Odds};
use witness::Witness;

/// Stories told when nobody says how many.
const SEEDS: u64 = 200;
/// A story that has not ended by then has come to a halt.
const LONGEST_STORY: Duration = Duration::from_hours(24 * 7);
/// Calm sessions after which a run must be done.
const CALM_SESSIONS: u32 = 12;

#[test]
fn no_pass_is_lost_or_dead_whatever_breaks() {
    let told = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match told("TAPWAVE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..told("TAPWAVE_SEEDS").unwrap_or(SEEDS),
    };
    let (mut failed, mut posts) = (BTreeMap::new(), 0);
    for seed in seeds.clone() {
        match tell(Odds::draw(seed, epoch())) {
            Ok(seen) => posts += seen,
            Err(wrong) => {
                failed.insert(seed, wrong);
            }
        }
    }
    println!("{} stories, {posts} POSTs", seeds.end - seeds.start);
    assert!(failed.is_empty(), "TAPWAVE_SEED tells one of these again: {failed:#?}");
}

#[test]
fn a_run_that_does_not_wait_for_the_settling_time_is_caught() {
    let hasty = |seed| {
        let mut odds = Odds::draw(seed, epoch());
        odds.options.fence_seconds = 0;
        odds
    };
    let caught = (0..SEEDS).any(|seed| tell(hasty(seed)).is_err());
    assert!(caught, "stories in which nothing can go wrong prove nothing");
}

fn epoch() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().expect("a time")
}

/// Tells one story; how many POSTs it had, or what was wrong.
fn tell(odds: Odds) -> Result<u64, Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut story = Story::begin(odds);
        let wrong = tokio::time::timeout(LONGEST_STORY, story.tell()).await;
        let wrong = wrong.unwrap_or_else(|_| vec!["it hung".to_owned()]);
        if std::env::var_os("TAPWAVE_SEED").is_some() {
            story.retell().await;
        }
        if wrong.is_empty() { Ok(story.witness.posts()) } else { Err(wrong) }
    })
}

struct Story {
    odds: Odds,
    rng: Rng,
    clock: Clock,
    tenant: InMemory,
    witness: Witness,
    identity: NewIdentity,
    began: Timestamp,
    home: TempDir,
}

/// How a session went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// It ended by itself, having done what it could.
    Through,
    /// It stopped on the way, or was stopped.
    Stopped,
}

impl Story {
    fn begin(odds: Odds) -> Self {
        let clock = Clock::starting_at(epoch());
        let tenant = InMemory::new(odds.open(), clock.clone());
        let witness = Witness::new(tenant.clone(), odds.renews);
        // On Linux, a folder in memory: a thousand stories make a million syncs.
        let shm = std::path::Path::new("/dev/shm");
        let home = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let home = home.expect("a temporary folder");
        fs::write(home.path().join("wave.csv"), &odds.wave).expect("written");
        let shift = |tenant: &mut tapwave_simulator::Tenant, now: Timestamp| {
            now.checked_add(tenant.options().clock_offset).unwrap_or(now)
        };
        Self {
            rng: Rng::with_seed(!odds.seed),
            began: tenant.with(shift),
            clock,
            tenant,
            witness,
            identity: keygen(epoch()),
            home,
            odds,
        }
    }

    async fn tell(&mut self) -> Vec<String> {
        for _ in 0..self.odds.troubled_sessions {
            let end = self.odds.end(&mut self.rng);
            self.session(end, true).await;
            let wrong = self.verdict(false).await;
            if !wrong.is_empty() {
                return told(&format!("after a session that ended {end:?}"), wrong);
            }
            let pause = Duration::from_secs(self.rng.u64(..1_500));
            self.clock.sleep(if self.rng.bool() { pause } else { Duration::ZERO }).await;
        }
        if self.odds.cleans_up == CleansUp::AsItIs {
            return self.clean_up().await;
        }
        self.calm();
        let mut went = Went::Stopped;
        for _ in 0..CALM_SESSIONS {
            went = self.session(End::Itself, false).await;
            if went == Went::Through {
                break;
            }
        }
        if went != Went::Through {
            return vec!["a calm tenant was not enough to get through".to_owned()];
        }
        // Whatever may still execute late has had its time.
        self.clock.sleep(self.odds.settle_after * 2).await;
        let wrong = self.verdict(true).await;
        if !wrong.is_empty() {
            return told("at the end", wrong);
        }
        match self.odds.cleans_up {
            CleansUp::Never => Vec::new(),
            _ => self.clean_up().await,
        }
    }

    /// Prints what the tenant did and what the ledger knows of it, for whoever looks for a cause.
    #[expect(clippy::print_stdout, reason = "asked for by TAPWAVE_SEED")]
    async fn retell(&self) {
        println!("{:#?}", self.odds.options);
        self.tenant.with(|tenant, _| {
            println!("{:#?}\n{:#?}", tenant.options().replication, tenant.options().faults);
            tenant
                .log()
                .iter()
                .for_each(|entry| println!("{} {} {:?}", entry.at, entry.upn, entry.event));
        });
        let Ok(folder) = RunFolder::open(&self.folder()) else { return };
        let Ok(ledger) = Ledger::open(&folder, Access::Read, self.clock.clone()).await else {
            return;
        };
        for row in ledger.rows(&Standing::ALL, None, 1_000).await.unwrap_or_default() {
            println!("{} {} {:?}", row.line, row.upn, row.state);
            for (at, event) in ledger.history(row.line).await.unwrap_or_default() {
                println!("    {at} {event:?}");
            }
        }
    }

    /// From here on nothing goes wrong any more.
    fn calm(&self) {
        self.tenant.with(|tenant, _| {
            tenant.options_mut().faults = tapwave_simulator::options::Faults::default();
            tenant.options_mut().interventions.clear();
        });
    }

    fn folder(&self) -> PathBuf {
        self.home.path().canonicalize().expect("there").join("run")
    }

    fn connect(&self) -> (Session, StopSwitch) {
        let limiter = Limiter::new(LimiterOptions::default(), self.clock.clone());
        let graph = Graph::new(Arc::new(self.witness.clone()), limiter, self.clock.clone());
        let (switch, stop) = StopSignal::new();
        let session = Session {
            graph,
            clock: self.clock.clone(),
            progress: Arc::new(NullProgress),
            stop,
            prompts: Arc::new(NoPrompts),
            issuers: Arc::new(|_: &[_]| HashMap::new()),
            may_read_groups: true,
            settle_after: None,
            keeps_going: false,
            began: self.clock.instant(),
        };
        (session, switch)
    }

    /// One process: a run if there is none yet, else a resume.
    async fn session(&mut self, end: End, troubled: bool) -> Went {
        let (session, switch) = self.connect();
        let faults = end.of_the_disk();
        let mut bustle = self.rng.fork();
        let others = self.others(&mut bustle, troubled);
        let work = self.work(&session, faults);
        let went = tokio::select! {
            went = ended(work, end, &switch, &self.clock) => went.unwrap_or(Went::Stopped),
            () = others => Went::Stopped,
        };
        self.witness.watch(None);
        went
    }

    async fn work(&self, session: &Session, faults: Failpoint) -> Went {
        let folder = RunFolder::create(&self.folder()).or_else(|_| RunFolder::open(&self.folder()));
        let folder = folder.expect("a folder");
        let fresh = !folder.holds_run();
        let mut sets = None;
        if fresh {
            match self.take_in(&folder, session).await {
                Some(book) => sets = Some(book.into_sets()),
                None => return Went::Stopped,
            }
        }
        let ledger = self.reopen(&folder, faults).await;
        let reader = Ledger::open(&folder, Access::Read, self.clock.clone()).await;
        self.witness.watch(Some(reader.expect("readable")));
        let issuance = match sets {
            Some(sets) => issuing::run(&ledger, sets, None, session, FinalLook::Auto).await,
            None => issuing::resume(&ledger, None, session, FinalLook::Auto).await,
        };
        let went = match issuance {
            Ok(done) if done.error.is_none() && !done.interrupted && done.handover.is_none() => {
                Went::Through
            }
            _ => Went::Stopped,
        };
        ledger.shut().await;
        went
    }

    async fn take_in(&self, folder: &RunFolder, session: &Session) -> Option<RecipientBook> {
        let prompts: Arc<dyn Prompts> = Arc::new(NoPrompts);
        let reader = vec![self.identity.recipient.clone()];
        let mut book = RecipientBook::new(BTreeMap::new(), reader, &[], prompts).expect("a book");
        let mut draft = Draft::create(folder, self.clock.clone()).expect("a draft");
        let wave = self.home.path().join("wave.csv");
        let read = intake::read(&wave, None, &mut book, &mut draft, session).ok()?;
        let mut unclaimed = |_: &[_]| Ok(HashMap::new());
        let options = &self.odds.options;
        let checked =
            intake::check(read, options, &mut book, &mut draft, session, &mut unclaimed, None);
        let Ok(verdict) = checked.await else {
            draft.discard().expect("discarded");
            return None;
        };
        let about = RunAbout {
            id: RunId::new(uuid::Uuid::nil()),
            name: folder.name(),
            tenant: None,
            graph_url: "https://graph.microsoft.com".to_owned(),
            options: options.clone(),
        };
        let now = self.clock.now();
        let ledger = intake::publish(draft, &verdict, &wave, &about, &book, now).expect("whole");
        ledger.shut().await;
        Some(book)
    }

    /// A killed process gives its lock back a moment later.
    async fn reopen(&self, folder: &RunFolder, faults: Failpoint) -> Ledger {
        loop {
            let clock = self.clock.clone();
            match Ledger::open_with(folder, Access::Write, clock, faults).await {
                Ok(ledger) => return ledger,
                Err(LedgerError::InUse { .. }) => self.clock.sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("seed {}: {error}", self.odds.seed),
            }
        }
    }

    /// What other people and the machine's clock do meanwhile.
    async fn others(&self, rng: &mut Rng, troubled: bool) {
        if !troubled || self.odds.bustle.is_zero() {
            return std::future::pending().await;
        }
        loop {
            self.clock.sleep(self.odds.bustle.mul_f64(rng.f64())).await;
            let upn = &self.odds.upns[rng.usize(..self.odds.upns.len())];
            match rng.u8(..4) {
                0 => {
                    self.tenant.with(|tenant, now| tenant.issue_elsewhere(now, upn));
                }
                1 => {
                    // Whether it works is their affair.
                    let _ = self.tenant.with(|tenant, now| tenant.use_pass(now, upn));
                }
                2 if self.odds.jumps => {
                    self.clock.jump(SignedDuration::from_secs(rng.i64(-7_200..=7_200)));
                }
                _ => {}
            }
        }
    }

    async fn verdict(&self, done: bool) -> Vec<String> {
        let mut wrong = self.witness.complaints();
        let folder = RunFolder::open(&self.folder());
        if let Some(folder) = folder.ok().filter(RunFolder::holds_run) {
            // Only what is at rest can be judged.
            self.reopen(&folder, Failpoint::default()).await.shut().await;
            let ledger = Ledger::open(&folder, Access::Read, self.clock.clone()).await;
            let ledger = ledger.expect("readable");
            wrong.extend(self.judge().judge(&ledger, done).await);
            let counts = ledger.counts().await.expect("readable");
            if done && counts.of(Standing::Checked) > 0 {
                wrong.push("a run that was through left rows without a pass".to_owned());
            }
        }
        wrong
    }

    /// The passes that were made by somebody else.
    fn foreign(&self) -> HashSet<String> {
        let elsewhere = |entry: &LogEntry| match &entry.event {
            PassEvent::Minted { method, elsewhere: true, .. } => Some(method.clone()),
            _ => None,
        };
        self.tenant.with(|tenant, _| tenant.log().iter().filter_map(elsewhere).collect())
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            tenant: &self.tenant,
            foreign: self.foreign(),
            existing: self.odds.options.existing,
            identity: &self.identity,
            began: self.began,
        }
    }

    /// Cleans up: where things go wrong, killed and begun again, and then in peace, until that
    /// is proven or only an operator can help.
    async fn clean_up(&mut self) -> Vec<String> {
        let folder = RunFolder::open(&self.folder());
        let Some(folder) = folder.ok().filter(RunFolder::holds_run) else { return Vec::new() };
        let posts = self.witness.posts();
        self.tenant.with(|tenant, _| tenant.options_mut().faults = self.odds.cleaning.clone());
        for _ in 0..self.odds.troubled_cleanups {
            let end = self.odds.end(&mut self.rng);
            let outcome = self.tidy(&folder, end, true).await;
            let wrong = self.cleaned(&folder, outcome.as_ref(), posts).await;
            if !wrong.is_empty() {
                return told(&format!("after a cleanup that ended {end:?}"), wrong);
            }
            self.clock.sleep(Duration::from_secs(self.rng.u64(..1_500))).await;
        }
        self.calm();
        for _ in 0..CALM_SESSIONS {
            let outcome = self.tidy(&folder, End::Itself, false).await;
            let wrong = self.cleaned(&folder, outcome.as_ref(), posts).await;
            if !wrong.is_empty() {
                return told("after a calm cleanup", wrong);
            }
            if outcome.is_some_and(|outcome| outcome.is_proven() || outcome.left.is_empty()) {
                // Whatever may still execute late has had its time.
                self.clock.sleep(self.odds.settle_after * 2).await;
                return told("after all", self.cleaned(&folder, None, posts).await);
            }
        }
        vec!["a calm tenant was not enough to clean up".to_owned()]
    }

    /// One process that cleans up; what it came to, if it did.
    async fn tidy(
        &mut self,
        folder: &RunFolder,
        end: End,
        troubled: bool,
    ) -> Option<CleanupReport> {
        let (session, switch) = self.connect();
        let ledger = self.reopen(folder, end.of_the_disk()).await;
        let mut bustle = self.rng.fork();
        let others = self.others(&mut bustle, troubled);
        let work = async {
            let outcome = cleanup::run(&ledger, &session, false).await;
            ledger.shut().await;
            outcome.ok()
        };
        tokio::select! {
            outcome = ended(work, end, &switch, &self.clock) => outcome.flatten(),
            () = others => None,
        }
    }

    /// What a cleanup did that it must not, by the tenant's log: asked for a pass, took somebody
    /// else's, called done what is not, or destroyed a copy of a pass that lives.
    async fn cleaned(
        &self,
        folder: &RunFolder,
        outcome: Option<&CleanupReport>,
        posts: u64,
    ) -> Vec<String> {
        self.reopen(folder, Failpoint::default()).await.shut().await;
        let ledger = Ledger::open(folder, Access::Read, self.clock.clone()).await;
        let ledger = ledger.expect("readable");
        let mut wrong = self.witness.complaints();
        if self.witness.posts() > posts {
            wrong.push("cleanup asked for a pass".to_owned());
        }
        let purged = ledger.purged().await.expect("readable").is_some();
        let held = ledger.counts().await.expect("readable").of(Standing::Held);
        let over = outcome.is_some_and(CleanupReport::is_proven) || purged;
        if purged && held > 0 {
            wrong.push("the copies of a held row were destroyed".to_owned());
        }
        wrong.extend(self.judge().judge_cleaned(&ledger, over).await);
        wrong
    }
}

/// Lets a session work to its end; nothing comes of one that is killed. A kill drops everything
/// where it stands; what the ledger was asked for before is still written, as it would be a
/// moment earlier.
async fn ended<T>(
    work: impl Future<Output = T>,
    end: End,
    switch: &StopSwitch,
    clock: &Clock,
) -> Option<T> {
    let mut work = Box::pin(work);
    match end {
        End::Itself | End::DiskBreaksAt(_) | End::DiskFullAt(_) => Some(work.await),
        End::KilledAfter(time) => {
            tokio::select! {
                went = work => Some(went),
                () = clock.sleep(time) => None,
            }
        }
        End::KilledAtPoll(mut polls) => {
            poll_fn(move |context| {
                polls -= 1;
                if polls == 0 { Poll::Ready(None) } else { work.as_mut().poll(context).map(Some) }
            })
            .await
        }
        End::DrainedAfter(time) => {
            tokio::select! {
                went = &mut work => return Some(went),
                () = clock.sleep(time) => {}
            }
            let _ = switch.request();
            Some(work.await)
        }
    }
}

fn told(when: &str, wrong: Vec<String>) -> Vec<String> {
    wrong.into_iter().map(|what| format!("{when}: {what}")).collect()
}
