//! Promises a whole wave conducted in this process against a simulated tenant, in whatever
//! time the test's runtime keeps; the ledger and the encryption are real.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tapwave_core::clock::Clock;
use tapwave_core::ids::RunId;
use tapwave_core::progress::NullProgress;
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Limiter, LimiterOptions};
use tapwave_ledger::{Draft, Existing, Ledger, RunFolder, RunOptions};
use tapwave_pipeline::run::Session;
use tapwave_pipeline::run::intake::{self, IntakeError, RunAbout};
use tapwave_pipeline::run::issuing::{self, Issuance, IssuingError};
use tapwave_pipeline::run::second_look::FinalLook;
use tapwave_pipeline::seal::RecipientBook;
use tapwave_pipeline::stop::{StopSignal, StopSwitch};
use tapwave_seal::{NoPrompts, Prompts, RecipientSet, keygen};
use tapwave_simulator::{InMemory, Tenant};
use tempfile::TempDir;

/// Why a wave was not conducted to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error(transparent)]
    Issuing(#[from] IssuingError),
}

/// A tenant, a wave for it, and everything a run needs.
pub(crate) struct Conducted {
    pub(crate) tenant: InMemory,
    pub(crate) session: Session,
    home: TempDir,
    wave: PathBuf,
    book: RecipientBook,
    pub(crate) options: RunOptions,
    pub(crate) look: FinalLook,
    _switch: StopSwitch,
}

impl Conducted {
    /// So many people in a tenant that behaves as `set` says.
    pub(crate) fn new(rows: u64, set: impl FnOnce(&mut Tenant)) -> Self {
        let clock = Clock::starting_at("2026-03-02T08:00:00Z".parse().expect("a time"));
        let upns: Vec<String> = (1..=rows).map(|n| format!("user{n}@contoso.example")).collect();
        let home = tempfile::tempdir().expect("a temporary folder");
        let wave = home.path().join("wave.csv");
        let mut file = std::fs::File::create(&wave).expect("a wave");
        writeln!(file, "userPrincipalName\n{}", upns.join("\n")).expect("written");
        let mut tenant = Tenant::for_wave(upns, 7);
        set(&mut tenant);
        let tenant = InMemory::new(tenant, clock.clone());
        let limiter = Limiter::new(LimiterOptions::default(), clock.clone());
        let prompts: Arc<dyn Prompts> = Arc::new(NoPrompts);
        let readers = vec![keygen(Timestamp::UNIX_EPOCH).recipient];
        let book = RecipientBook::new(std::collections::BTreeMap::new(), readers, &[], prompts);
        let (switch, stop) = StopSignal::new();
        Self {
            session: Session {
                graph: Graph::new(Arc::new(tenant.clone()), limiter, clock.clone()),
                may_read_groups: true,
                settle_after: None,
                keeps_going: false,
                began: clock.instant(),
                clock,
                progress: Arc::new(NullProgress),
                stop,
                prompts: Arc::new(NoPrompts),
                issuers: Arc::new(|_: &[_]| HashMap::new()),
            },
            tenant,
            home,
            wave,
            book: book.expect("a recipient"),
            options: RunOptions {
                fence_seconds: 300,
                existing: Existing::Replace,
                ..RunOptions::default()
            },
            look: FinalLook::Auto,
            _switch: switch,
        }
    }

    /// Checks the wave and makes its ledger.
    pub(crate) async fn check(&mut self) -> Result<Ledger, Stopped> {
        let folder = self.home.path().canonicalize().expect("a path").join("run");
        let folder = RunFolder::create(&folder).expect("a folder");
        let session = &self.session;
        let mut draft = Draft::create(&folder, session.clock.clone()).expect("a draft");
        let wave = intake::read(&self.wave, None, &mut self.book, &mut draft, session)?;
        let mut unclaimed = |_: &[_]| Ok(HashMap::new());
        let (book, options) = (&mut self.book, &self.options);
        let checked =
            intake::check(wave, options, book, &mut draft, session, &mut unclaimed, None).await;
        let verdict = match checked {
            Ok(verdict) => verdict,
            Err(error) => {
                draft.discard().expect("discarded");
                return Err(error.into());
            }
        };
        let about = RunAbout {
            id: RunId::new(uuid::Uuid::nil()),
            name: folder.name(),
            tenant: None,
            graph_url: "https://graph.microsoft.com".to_owned(),
            options: self.options.clone(),
        };
        let now = session.clock.now();
        let ledger = intake::publish(draft, &verdict, &self.wave, &about, &self.book, now);
        Ok(ledger.expect("published"))
    }

    /// Issues from the ledger until nothing is left to do, or the run must end.
    pub(crate) async fn issue(&mut self, ledger: &Ledger) -> Result<Issuance, Stopped> {
        let sets: Vec<Arc<RecipientSet>> =
            RecipientBook::restore(&ledger.about().recipients, &self.session.prompts)
                .expect("the same recipients");
        Ok(issuing::run(ledger, sets, None, &self.session, self.look).await?)
    }

    /// Passes that live in the tenant.
    pub(crate) fn live(&self) -> usize {
        self.tenant.with(|tenant, _| tenant.passes().count())
    }
}
