//! Promises that a run acts on people whom no other open run of this machine has, and in the
//! folder where it belongs. Must never let a copy of a run issue or mail anything unasked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{Failure, World, addressees};
use crate::output::{count, readers, shown};
use tapwave_core::ids::{Line, RunId, Upn, UserId};
use tapwave_core::limits;
use tapwave_graph::Graph;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_ledger::{About, Claims, ClaimsError, Ledger, Pages, Registry, RunFolder, Standing};
use tapwave_pipeline::run::intake::IntakeError;

/// How a run stands to this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Belonging {
    /// Somebody agreed to go on with it although it was not made here, or lies elsewhere.
    is_new_here: bool,
    /// This machine has acted on it before.
    is_known: bool,
    newly_lacks: u64,
    /// How many of the run's events this ledger is known to lack.
    pub(super) lacks: u64,
}

impl Belonging {
    /// Whether what the run says of itself is to be doubted.
    pub(super) const fn is_new_here(&self) -> bool {
        self.is_new_here
    }

    /// What [`World::names_its_people`] needs besides.
    pub(super) fn needs(&self) -> Option<Need> {
        self.is_new_here.then_some(Need::ReadUsers)
    }
}

/// Where a row may still be issued a pass, or another one.
const OPEN: [Standing; 6] = [
    Standing::Checked,
    Standing::Intent,
    Standing::Unsettled,
    Standing::Held,
    Standing::Lost,
    Standing::Failed,
];

/// A run's claims on its people, from its check on.
pub(super) struct Claimant<'a> {
    home: PathBuf,
    /// Opened when the first are claimed: a wave that is refused leaves nothing behind.
    claims: Option<Claims>,
    run: RunId,
    folder: &'a RunFolder,
    registry: &'a Registry,
    /// When the check began.
    began: Timestamp,
}

impl<'a> Claimant<'a> {
    pub(super) const fn new(
        home: PathBuf,
        run: RunId,
        folder: &'a RunFolder,
        registry: &'a Registry,
        began: Timestamp,
    ) -> Self {
        Self { home, claims: None, run, folder, registry, began }
    }

    /// Claims these people; returns those whom another open run has, with its name.
    pub(super) fn claim(
        &mut self,
        users: &[UserId],
    ) -> Result<HashMap<UserId, String>, ClaimsError> {
        let claims = if let Some(claims) = &mut self.claims {
            claims
        } else {
            let claims = self.claims.insert(Claims::open(&self.home)?);
            // Before there is a ledger: one that is left by a kill is known for ours.
            claims.note(self.run, self.folder, 0)?;
            claims
        };
        let taken = claims.claim(self.run, self.folder, users, self.began)?;
        Ok(named(taken, self.registry))
    }

    /// Nothing will be issued.
    pub(super) fn give_up(&mut self) -> Result<(), ClaimsError> {
        let Some(claims) = &mut self.claims else { return Ok(()) };
        claims.release(self.run, self.folder, &[], self.began)
    }
}

/// Each run as it is typed.
pub(super) fn named(
    taken: HashMap<UserId, PathBuf>,
    registry: &Registry,
) -> HashMap<UserId, String> {
    let mut words: HashMap<PathBuf, String> = HashMap::new();
    let mut word = |path: PathBuf| {
        words
            .entry(path)
            .or_insert_with_key(|path| match RunFolder::open(path) {
                Ok(folder) => registry.word_for(&folder),
                Err(_) => path.display().to_string(),
            })
            .clone()
    };
    taken.into_iter().map(|(user, path)| (user, word(path))).collect()
}

impl World {
    /// Asks before a run is acted on that this machine did not make, or that lies in a folder
    /// where it does not belong: its ledger may say what somebody else wants, and a copy may know
    /// nothing of what the run has done since. `risk` says what could come of it. Nothing if
    /// somebody says no.
    pub(super) async fn belongs_here(
        &self,
        ledger: &Ledger,
        risk: &str,
    ) -> Result<Option<Belonging>, Failure> {
        let (about, folder) = (ledger.about(), ledger.folder());
        let mut claims = Claims::open(&self.home()?)?;
        let known = claims.known(about.id)?;
        let latest = ledger.latest_event().await?;
        let here = folder.path().display();
        let newest = known.as_ref().map_or(latest, |known| known.latest_event);
        let lacks = u64::try_from(newest.saturating_sub(latest)).unwrap_or_default();
        let moved = ledger.came_from().await?;
        let elsewhere = known.as_ref().map(|known| &known.path).filter(|at| *at != folder.path());
        let why = match (moved.as_deref().or(elsewhere.map(PathBuf::as_path)), &known) {
            (Some(place), _) => format!(
                "this run belongs in {} and lies in {here} now{}",
                place.display(),
                still_there(place, about.id)
            ),
            (None, Some(_)) if lacks > 0 => format!(
                "{here} holds an older state of this run: {} recorded since are missing",
                count(lacks, "event", "events")
            ),
            (None, None) => format!("this machine did not make the run in {here}"),
            (None, Some(_)) => String::new(),
        };
        if !why.is_empty() {
            self.report.warn(&why);
            self.show(ledger).await?;
            if !self.common.yes {
                match self.prompts.yes_or_no(&format!("{risk}; carry on here?")) {
                    Some(true) => {}
                    Some(false) => {
                        self.report.info("nothing was done");
                        return Ok(None);
                    }
                    None => return Err(Failure::nobody_to_ask(&format!("{why}; {risk}"))),
                }
            }
        }
        let is_new_here = !why.is_empty();
        let is_known = known.is_some();
        let lacked = known.map_or(0, |known| known.lacks);
        Ok(Some(Belonging { is_new_here, is_known, newly_lacks: lacks, lacks: lacks.max(lacked) }))
    }

    /// Whom a run from elsewhere concerns, by its own words.
    async fn show(&self, ledger: &Ledger) -> Result<(), Failure> {
        let (about, report) = (ledger.about(), &self.report);
        report.info(format_args!("tenant: {} at {}", tenant_of(about), shown(&about.graph_url)));
        report.info(format_args!("people: {}", people_of(ledger).await?));
        // Names of keys are the ledger's own here: each key counts, whatever it is called.
        for line in readers(&about.recipients, |_, _| false) {
            report.info(format_args!("sealed to, {line}"));
        }
        if let Some(mail) = &about.options.mail {
            report.info(format_args!("mail: {}", addressees::manner(mail)));
        }
        for line in addressees::of(ledger).await? {
            report.info(line);
        }
        Ok(())
    }

    /// From here on the run belongs to this machine and lies where it belongs.
    pub(super) async fn settle(
        &self,
        belonging: &Belonging,
        ledger: &Ledger,
    ) -> Result<(), Failure> {
        if belonging.is_new_here {
            if belonging.newly_lacks > 0 {
                let run = ledger.about().id;
                Claims::open(&self.home()?)?.note_lacking(run, belonging.newly_lacks)?;
            }
            ledger.settle_here().await?;
        }
        self.made_here(ledger).await
    }

    /// Makes sure that a run which is new here acts on the people whom it names: whoever was asked
    /// saw names, and Graph acts on ids.
    pub(super) async fn names_its_people(
        &self,
        belonging: &Belonging,
        ledger: &Ledger,
        graph: &Graph,
    ) -> Result<(), Failure> {
        if !belonging.is_new_here {
            return Ok(());
        }
        let mut others = Vec::new();
        let mut pages = ledger.pages(&Standing::ALL, limits::ROWS_PER_CHECK);
        while let Some(rows) = pages.next().await? {
            let mut named = Vec::new();
            for row in &rows {
                if let Some(user) = row.user()
                    && row.state.standing() != Standing::Removed
                {
                    let upn = row.upn.parse::<Upn>().map_err(|_| row.lacks("its name is none"))?;
                    named.push((row.line, upn, user));
                }
            }
            others.extend(other_people(&named, belonging.is_known, graph).await?);
        }
        if others.is_empty() {
            return Ok(());
        }
        let wave = Path::new(&ledger.about().wave.path);
        Err(Failure::other_people(&others, &self.line.cleanup_of(wave)))
    }

    /// Notes that this machine works on a run, and from now on how far it is: whatever ends this
    /// process, an older state of the run is known for one.
    pub(super) async fn made_here(&self, ledger: &Ledger) -> Result<(), Failure> {
        let (run, folder) = (ledger.about().id, ledger.folder().clone());
        let mut claims = Claims::open(&self.home()?)?;
        claims.note(run, &folder, ledger.latest_event().await?)?;
        let claims = Mutex::new(claims.hasty()?);
        ledger.on_commit(move |latest| {
            let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
            // The next commit notes it too.
            let _ = claims.note(run, &folder, latest);
        });
        Ok(())
    }

    /// Claims the people whom a run may still issue to.
    pub(super) async fn claim_open(&self, ledger: &Ledger) -> Result<(), Failure> {
        let about = ledger.about();
        let mut claims = Claims::open(&self.home()?)?;
        let users = open_people(ledger).await?;
        let now = self.clock.now();
        let taken = claims.claim(about.id, ledger.folder(), &users, now)?;
        let people = taken.len();
        match named(taken, &self.registry()?).into_values().min() {
            Some(run) => Err(IntakeError::Claimed { people, run }.into()),
            None => Ok(()),
        }
    }

    /// Ends the claims on people to whom this run issues nothing more, and notes how far it is.
    /// What fails here costs a question later, and no pass.
    pub(super) async fn end_claims(&self, ledger: &Ledger) {
        if let Err(failure) = self.try_end_claims(ledger).await {
            self.report.warn(&failure.message.what);
        }
    }

    async fn try_end_claims(&self, ledger: &Ledger) -> Result<(), Failure> {
        let about = ledger.about();
        let mut claims = Claims::open(&self.home()?)?;
        let open = match ledger.closed().await? {
            Some(_) => Vec::new(),
            None => open_people(ledger).await?,
        };
        let now = self.clock.now();
        claims.release(about.id, ledger.folder(), &open, now)?;
        Ok(claims.note(about.id, ledger.folder(), ledger.latest_event().await?)?)
    }
}

/// Those whose id is not the one of the person whom they name.
async fn other_people(
    rows: &[(Line, Upn, UserId)],
    is_known: bool,
    graph: &Graph,
) -> Result<Vec<String>, Failure> {
    let upns: Vec<Upn> = rows.iter().map(|(_, upn, _)| upn.clone()).collect();
    let found = graph.users(&upns).await?;
    let (mut others, mut unfound) = (Vec::new(), Vec::new());
    for (line, upn, user) in rows {
        match found.get(&upn.key()) {
            Some(found) if found.id == *user => {}
            Some(_) => others.push(format!("line {line}, {}", shown(upn.as_str()))),
            None => unfound.push((line, upn, *user)),
        }
    }
    // Where this machine has acted on the run before: somebody who was renamed since.
    if is_known {
        return Ok(others);
    }
    let ids: Vec<UserId> = unfound.iter().map(|(.., user)| *user).collect();
    for ((line, upn, _), known) in unfound.iter().zip(graph.users_by_id(&ids).await?) {
        // Whoever is deleted is nobody else.
        if let Some(name) = known.and_then(|user| user.user_principal_name) {
            let (upn, name) = (shown(upn.as_str()), shown(&name));
            others.push(format!("line {line}, {upn}, whose id is that of {name}"));
        }
    }
    Ok(others)
}

/// A run's tenant, for people.
fn tenant_of(about: &About) -> String {
    about.tenant.as_deref().map_or_else(|| "unknown".to_owned(), shown)
}

/// A run's people, for people: how many, and the first of them.
async fn people_of(ledger: &Ledger) -> Result<String, Failure> {
    const NAMED: usize = 3;
    let rows = ledger.counts().await?.rows();
    let first = ledger.rows(&Standing::ALL, None, NAMED).await?;
    let mut names: Vec<String> = first.iter().map(|row| shown(&row.upn)).collect();
    if rows > names.len() as u64 {
        names.push("…".to_owned());
    }
    Ok(format!("{rows} ({})", names.join(", ")))
}

fn still_there(place: &Path, run: RunId) -> &'static str {
    let there = RunFolder::open(place).is_ok_and(|folder| folder.run_id() == Some(run));
    if there { ", and is still there: this is a copy" } else { "" }
}

async fn open_people(ledger: &Ledger) -> Result<Vec<UserId>, Failure> {
    let mut users = Vec::new();
    let mut pages = ledger.pages(&OPEN, limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            users.push(row.person()?.user);
        }
    }
    Ok(users)
}

/// People whom a run may still issue to.
pub(super) async fn still_open(ledger: &Ledger) -> Result<u64, Failure> {
    let counts = ledger.counts().await?;
    Ok(OPEN.iter().map(|standing| counts.of(*standing)).sum())
}

/// Lines as people name them: `2-31, 33`.
pub(super) fn ranges(lines: &[Line]) -> String {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for line in lines {
        match spans.last_mut() {
            Some((_, last)) if line.0 == *last + 1 => *last = line.0,
            _ => spans.push((line.0, line.0)),
        }
    }
    let span = |(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    spans.iter().map(span).collect::<Vec<_>>().join(", ")
}

/// The lines of which something may be alive.
pub(super) async fn alive(ledger: &Ledger) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    let mut pages = Pages::new(async |after| ledger.remains(after, limits::ROWS_PER_CHECK).await);
    while let Some(rows) = pages.next().await? {
        lines.extend(rows.iter().map(|row| row.line));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_named_by_their_ranges() {
        let lines: Vec<Line> = [2, 3, 4, 6, 8, 9].into_iter().map(Line).collect();
        assert_eq!(ranges(&lines), "2-4, 6, 8-9");
        assert_eq!(ranges(&[]), "");
    }
}
