//! Promises that the ledger's tables follow from [`state::next`] alone, and that a refused move
//! leaves no trace. Must never begin or end a transaction: the callers decide what becomes durable
//! together.
//!
//! Every function that moves a row validates first and writes afterwards. So a refusal
//! ([`MoveError::Refused`]) has written nothing, and other moves in the transaction remain valid; a
//! failed write ([`MoveError::Broken`]) ends the transaction.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, Statement, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::events::{self, Asked, Channel, Eligible, Event, IntentId, Posted, Proof, Reader};
use super::fault::LedgerError;
use super::record::{
    About, Counts, Denied, HandoffRecord, IntentRecord, IssuedRecord, MailRecord, NewBadRow,
    NewRow, Remains, RowRecord, Unhanded, Unheld,
};
use super::state::{self, MailState, Standing, State};
use tapwave_core::clock::later;
use tapwave_core::effect::{Effect, Obstacle};
use tapwave_core::ids::{Line, MethodId, UserId};
use tapwave_core::limits;

#[derive(Debug)]
pub(super) enum MoveError {
    /// Nothing was written.
    Refused(LedgerError),
    /// The transaction must be rolled back.
    Broken(rusqlite::Error),
}

impl From<LedgerError> for MoveError {
    fn from(error: LedgerError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for MoveError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Broken(error)
    }
}

// ---- moves -------------------------------------------------------------------------------

pub(super) fn insert(db: &Connection, row: &NewRow) -> Result<(), rusqlite::Error> {
    let state = State::Listed;
    db.prepare_cached(
        "INSERT INTO rows (line, user_principal_name, user_principal_name_key, cells_json,
                           wanted_json, state, state_json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        key(row.line),
        row.upn,
        row.upn.to_lowercase(),
        json(&row.cells)?,
        row.wanted_json,
        state.name(),
        json(&state)?,
    ])?;
    Ok(())
}

pub(super) fn insert_bad(db: &Connection, row: NewBadRow, at: Timestamp) -> Result<(), MoveError> {
    let NewBadRow { line, upn, cells, problems } = row;
    insert(db, &NewRow { line, upn, cells, wanted_json: "{}".into() })?;
    apply(db, line, &Event::Ineligible { problems }, at)?;
    Ok(())
}

pub(super) fn set_about(
    db: &Connection,
    about: &About,
    place: &str,
) -> Result<(), rusqlite::Error> {
    db.execute(
        "INSERT INTO about (only_row, about_json, place, checked_at) VALUES (1, ?1, ?2, ?3)",
        params![json(about)?, place, about.checked_at.to_string()],
    )?;
    Ok(())
}

pub(super) fn place(db: &Connection) -> Result<String, rusqlite::Error> {
    db.query_row("SELECT place FROM about", [], |row| row.get(0))
}

/// Also forgets second looks: what was known of the passes may be out of date.
pub(super) fn set_place(db: &Connection, place: &str) -> Result<(), rusqlite::Error> {
    db.execute("UPDATE about SET place = ?1", [place])?;
    forget_looks(db)
}

pub(super) fn forget_looks(db: &Connection) -> Result<(), rusqlite::Error> {
    db.execute("UPDATE rows SET looked_at = NULL", []).map(drop)
}

pub(super) fn latest_event(db: &Connection) -> Result<i64, rusqlite::Error> {
    db.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))
}

/// Records an event that needs no intent.
pub(super) fn record(
    db: &Connection,
    line: Line,
    event: &Event,
    at: Timestamp,
) -> Result<State, MoveError> {
    // Lost attempts and mails are allowed: their intent may have died with an earlier process.
    let needs_intent = matches!(
        event,
        Event::Intended { .. }
            | Event::NotEffected { .. }
            | Event::Refused { .. }
            | Event::InTheWay { .. }
            | Event::Sealed { .. }
            | Event::MailIntended { .. }
            | Event::NoticeDue
    ) || matches!(
        event,
        Event::MailEnded { outcome, .. } if !matches!(outcome, Effect::Unsettled { .. })
    );
    if needs_intent {
        return Err(LedgerError::NeedsIntent { line, event: event.name() }.into());
    }
    apply(db, line, event, at)
}

pub(super) fn intend(
    db: &Connection,
    line: Line,
    user: UserId,
    asked: &Asked,
    graph_time: Timestamp,
    at: Timestamp,
) -> Result<IntentId, MoveError> {
    if closed(db)?.is_some() {
        return Err(LedgerError::Closed.into());
    }
    let intended =
        |intent| Event::Intended { intent: IntentId(intent), asked: asked.clone(), graph_time };
    // The id comes from the insert, so the move is validated with another one before.
    let (state, known) = state_of(db, line)?;
    state::next(&state, &intended(0)).map_err(|source| LedgerError::Illegal { line, source })?;
    if known != Some(user) {
        return Err(LedgerError::OtherUser(line).into());
    }
    db.prepare_cached(
        "INSERT INTO intents (line, user_id, asked_json, graph_time, minted_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        key(line),
        user.to_string(),
        json(asked)?,
        graph_time.to_string(),
        at.to_string()
    ])?;
    let intent = db.last_insert_rowid();
    apply(db, line, &intended(intent), at)?;
    Ok(IntentId(intent))
}

/// Records the outcome of an attempt that gave no pass whose code we have.
pub(super) fn conclude(
    db: &Connection,
    line: Line,
    intent: IntentId,
    effect: Effect<Unheld, Denied>,
    given_up: Timestamp,
    at: Timestamp,
) -> Result<State, MoveError> {
    let event = match effect {
        Effect::Done(Unheld { method, why }) => {
            Event::Lost { intent, why, given_up, method: Some(method) }
        }
        Effect::Refused(Denied::Final { why }) => Event::Refused { intent, why },
        Effect::Refused(Denied::InTheWay { why }) => Event::InTheWay { intent, why },
        Effect::NoEffect(Obstacle { why, .. }) => Event::NotEffected { intent, why },
        Effect::Unsettled { why } => Event::Lost { intent, why, given_up, method: None },
    };
    apply(db, line, &event, at)
}

pub(super) struct SealedCopy {
    /// Index of its recipients.
    pub(super) set: u32,
    /// A complete age file.
    pub(super) ciphertext: Vec<u8>,
    /// Graph's clock when the pass was received.
    pub(super) graph_time: Timestamp,
}

pub(super) fn seal(
    db: &Connection,
    line: Line,
    intent: IntentId,
    issued: &IssuedRecord,
    copy: &SealedCopy,
    at: Timestamp,
) -> Result<State, MoveError> {
    let SealedCopy { set, ciphertext, graph_time } = copy;
    let event = Event::Sealed {
        intent,
        method: issued.method.clone(),
        start: issued.start,
        lifetime_minutes: issued.lifetime_minutes,
        one_time: issued.one_time,
        graph_time: *graph_time,
    };
    let state = apply(db, line, &event, at)?;
    db.prepare_cached("UPDATE rows SET recipient_set = ?2 WHERE line = ?1")?
        .execute(params![key(line), set])?;
    db.prepare_cached("INSERT OR REPLACE INTO sealed (line, ciphertext) VALUES (?1, ?2)")?
        .execute(params![key(line), ciphertext])?;
    Ok(state)
}

pub(super) fn intend_mail(
    db: &Connection,
    line: Line,
    channel: Channel,
    posted: Posted,
    at: Timestamp,
) -> Result<(), MoveError> {
    if closed(db)?.is_some() {
        return Err(LedgerError::Closed.into());
    }
    apply(db, line, &Event::MailIntended { channel, posted: Box::new(posted) }, at)?;
    Ok(())
}

/// Records the outcome of a mail. Once the pass is delivered, its notice is due in the same commit, if
/// the row has a reader for it.
pub(super) fn conclude_mail(
    db: &Connection,
    line: Line,
    channel: Channel,
    outcome: Effect<String>,
    at: Timestamp,
) -> Result<State, MoveError> {
    let state = apply(db, line, &Event::MailEnded { channel, outcome }, at)?;
    let has_notice_reader = || {
        db.prepare_cached("SELECT notice_reader_json IS NOT NULL FROM rows WHERE line = ?1")?
            .query_row([key(line)], |row| row.get::<_, bool>(0))
    };
    if matches!(state, State::Delivered { notice: None, .. }) && has_notice_reader()? {
        return apply(db, line, &Event::NoticeDue, at);
    }
    Ok(state)
}

/// A second time changes nothing.
pub(super) fn close(db: &Connection, at: Timestamp) -> Result<(), rusqlite::Error> {
    db.execute("UPDATE about SET closed_at = coalesce(closed_at, ?1)", [at.to_string()])?;
    Ok(())
}

pub(super) fn reopen(db: &Connection) -> Result<(), rusqlite::Error> {
    db.execute("UPDATE about SET closed_at = NULL", [])?;
    Ok(())
}

pub(super) fn set_checked_at(db: &Connection, at: Timestamp) -> Result<(), rusqlite::Error> {
    db.execute("UPDATE about SET checked_at = ?1", [at.to_string()])?;
    Ok(())
}

pub(super) fn add_traffic(
    db: &Connection,
    requests: u64,
    throttled: u64,
) -> Result<(), rusqlite::Error> {
    let add = |count| i64::try_from(count).unwrap_or(i64::MAX);
    db.execute(
        "UPDATE about SET requests = requests + ?1, throttled = throttled + ?2",
        [add(requests), add(throttled)],
    )?;
    Ok(())
}

pub(super) fn handed_off(
    db: &Connection,
    file: &str,
    digest: &str,
    lines: &[Line],
    at: Timestamp,
) -> Result<(), rusqlite::Error> {
    db.execute(
        "INSERT OR REPLACE INTO handoffs (file, written_at, digest) VALUES (?1, ?2, ?3)",
        params![file, at.to_string(), digest],
    )?;
    let mut mark = db.prepare_cached("UPDATE rows SET handoff_file = ?2 WHERE line = ?1")?;
    for line in lines {
        mark.execute(params![key(*line), file])?;
    }
    Ok(())
}

/// Deletes every ciphertext; with `secure_delete` their pages are overwritten with zeros.
pub(super) fn delete_sealed(db: &Connection, at: Timestamp) -> Result<u64, rusqlite::Error> {
    let count = db.query_row("SELECT count(*) FROM sealed", [], |row| row.get::<_, i64>(0))?;
    db.execute("DELETE FROM sealed", [])?;
    db.execute("UPDATE about SET purged_at = ?1", [at.to_string()])?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Marks every pass that may have been sealed in the last commit as doubted: a commit whose fsync
/// failed may still be on the disk. It has at most [`limits::RECORDS_PER_COMMIT`] events.
pub(super) fn doubt_last_seals(db: &Connection, at: Timestamp) -> Result<(), MoveError> {
    let mut last = db.prepare(
        "SELECT DISTINCT e.line FROM events e JOIN rows r ON r.line = e.line
         WHERE e.seq > (SELECT max(seq) FROM events) - ?1 AND e.event = 'sealed'
           AND r.state = 'sealed' ORDER BY e.line",
    )?;
    let lines = collect_lines(&mut last, [sql_limit(limits::RECORDS_PER_COMMIT)])?;
    lines.into_iter().try_for_each(|line| apply(db, line, &Event::Doubted, at).map(drop))
}

/// The only place where a row's state changes.
fn apply(db: &Connection, line: Line, event: &Event, at: Timestamp) -> Result<State, MoveError> {
    let (before, _) = state_of(db, line)?;
    let after =
        state::next(&before, event).map_err(|source| LedgerError::Illegal { line, source })?;
    db.prepare_cached("INSERT INTO events (line, at, event, event_json) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key(line), at.to_string(), event.name(), json(event)?])?;
    // These events do not explain the state, so its reason stays.
    let keeps_reason = match event {
        Event::OrphanFound { .. }
        | Event::ForeignSeen { .. }
        | Event::NotListed { .. }
        | Event::RemovalIntended { .. } => true,
        Event::Settled { .. } => before == after,
        // The reason why a mail's outcome is unknown stays when it cannot be repeated.
        Event::MailNotBegun { .. } => {
            matches!(before, State::Mailing { .. })
                || matches!(before.notice(), Some(MailState::Open(_)))
        }
        _ => false,
    };
    db.prepare_cached(
        "UPDATE rows SET state = ?2, state_json = ?3, notice = ?6,
                         reason = CASE WHEN ?5 THEN reason ELSE ?4 END WHERE line = ?1",
    )?
    .execute(params![
        key(line),
        after.name(),
        json(&after)?,
        event.reason(),
        keeps_reason,
        after.notice().map(MailState::name),
    ])?;
    store_details(db, line, &before, &after, event, at)?;
    Ok(after)
}

/// Writes the columns that an event changes besides the state.
fn store_details(
    db: &Connection,
    line: Line,
    before: &State,
    after: &State,
    event: &Event,
    at: Timestamp,
) -> Result<(), rusqlite::Error> {
    match event {
        Event::Checked(eligible) => store_eligible(db, line, eligible)?,
        Event::Intended { intent, .. } => {
            db.prepare_cached(
                "UPDATE rows SET latest_intent = ?2, absent_since = NULL WHERE line = ?1",
            )?
            .execute(params![key(line), intent.0])?;
        }
        Event::NotEffected { intent, .. } | Event::Refused { intent, .. } => {
            end_intent(db, *intent, event, None)?;
            clear_may_live(db, *intent)?;
        }
        Event::InTheWay { intent, .. } => end_intent(db, *intent, event, None)?,
        Event::Lost { intent, given_up, method, .. } => {
            end_intent(db, *intent, event, Some(*given_up))?;
            store_lost(db, line, *intent, *given_up, method.as_ref())?;
        }
        Event::Sealed { intent, method, start, lifetime_minutes, one_time, graph_time } => {
            end_intent(db, *intent, event, Some(*graph_time))?;
            // From now on its pass is known by its id.
            clear_may_live(db, *intent)?;
            let issued = IssuedRecord {
                method: method.clone(),
                start: *start,
                lifetime_minutes: *lifetime_minutes,
                one_time: *one_time,
            };
            let expires = match start {
                Some(start) => expiry((*start).max(*graph_time), *lifetime_minutes),
                None => latest_expiry(db, *intent, *graph_time)?,
            };
            store_issued(db, line, &issued, *graph_time, expires)?;
        }
        Event::OrphanFound { method, over } => store_found(db, line, method, *over)?,
        Event::NotListed { graph_time } => store_absence(db, line, *graph_time)?,
        // The user's only pass is the sealed one, so it has replaced all earlier ones.
        Event::Verified => mark_gone(db, line, Proof::Replaced, before.method())?,
        Event::Removed { proof } => mark_gone(db, line, *proof, None)?,
        Event::Settled { proof, .. } => store_settled(db, line, before, after, *proof)?,
        Event::Retried => reset_attempts(db, line)?,
        Event::MailIntended { channel, posted } => insert_mail(db, line, *channel, posted)?,
        Event::MailEnded { channel, outcome } => end_mail(db, line, *channel, outcome, at)?,
        Event::Readdressed { channel, reader } => readdress(db, line, *channel, reader)?,
        Event::Held { found: Some(method), .. }
        | Event::Displaced { found: Some(method), .. }
        | Event::ForeignSeen { method } => {
            db.prepare_cached("UPDATE rows SET foreign_method_id = ?2 WHERE line = ?1")?
                .execute(params![key(line), method.as_str()])?;
        }
        Event::Held { found: None, .. }
        | Event::Displaced { found: None, .. }
        | Event::Ineligible { .. }
        | Event::Skipped { .. }
        | Event::TooLate { .. }
        | Event::GivenUp { .. }
        | Event::Doubted
        | Event::NoticeDue
        | Event::MailNotBegun { .. }
        | Event::RemovalIntended { .. } => {}
    }
    Ok(())
}

fn store_found(
    db: &Connection,
    line: Line,
    method: &MethodId,
    over: Timestamp,
) -> Result<(), rusqlite::Error> {
    insert_pass(db, line, method, over)?;
    db.prepare_cached("UPDATE rows SET absent_since = NULL WHERE line = ?1")?
        .execute([key(line)])?;
    Ok(())
}

fn store_absence(
    db: &Connection,
    line: Line,
    graph_time: Timestamp,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached("UPDATE rows SET absent_since = coalesce(absent_since, ?2) WHERE line = ?1")?
        .execute(params![key(line), graph_time.to_string()])?;
    Ok(())
}

fn store_lost(
    db: &Connection,
    line: Line,
    intent: IntentId,
    given_up: Timestamp,
    method: Option<&MethodId>,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached("UPDATE rows SET attempts = attempts + 1 WHERE line = ?1")?
        .execute([key(line)])?;
    match method {
        Some(method) => insert_pass(db, line, method, latest_expiry(db, intent, given_up)?),
        None => Ok(()),
    }
}

fn store_issued(
    db: &Connection,
    line: Line,
    issued: &IssuedRecord,
    graph_time: Timestamp,
    over: Timestamp,
) -> Result<(), rusqlite::Error> {
    let IssuedRecord { method, start, lifetime_minutes, one_time } = issued;
    db.prepare_cached(
        "UPDATE rows SET method_id = ?2, pass_start = ?3, pass_lifetime_minutes = ?4,
                         pass_one_time = ?5, handoff_file = NULL, looked_at = NULL,
                         sealed_at = ?6 WHERE line = ?1",
    )?
    .execute(params![
        key(line),
        method.as_str(),
        start.map(|start| start.to_string()),
        lifetime_minutes,
        one_time,
        graph_time.as_second(),
    ])?;
    insert_pass(db, line, method, over)
}

fn store_settled(
    db: &Connection,
    line: Line,
    before: &State,
    after: &State,
    proof: Option<Proof>,
) -> Result<(), rusqlite::Error> {
    if let Some(proof) = proof {
        mark_gone(db, line, proof, None)?;
    }
    if before != after {
        clear_sealed(db, line)?;
    }
    if matches!(before, State::Held { .. }) {
        reset_attempts(db, line)?;
    }
    Ok(())
}

fn store_eligible(db: &Connection, line: Line, eligible: &Eligible) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "UPDATE rows SET user_id = ?2, display_name = ?3, asked_json = ?4,
                         recipient_set = ?5, reader_json = ?6, notice_reader_json = ?7
         WHERE line = ?1",
    )?
    .execute(params![
        key(line),
        eligible.user.to_string(),
        eligible.display_name,
        json(&eligible.asked)?,
        eligible.set,
        eligible.reader.as_ref().map(json).transpose()?,
        eligible.notice_reader.as_ref().map(json).transpose()?,
    ])?;
    Ok(())
}

fn insert_mail(
    db: &Connection,
    line: Line,
    channel: Channel,
    posted: &Posted,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO mails
             (line, channel, message_id, mail_date, recipient, courier, body, digest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        key(line),
        channel.name(),
        posted.message_id,
        posted.date.to_string(),
        posted.to,
        posted.courier,
        posted.body,
        posted.digest,
    ])?;
    Ok(())
}

fn end_mail(
    db: &Connection,
    line: Line,
    channel: Channel,
    outcome: &Effect<String>,
    at: Timestamp,
) -> Result<(), rusqlite::Error> {
    let receipt = match outcome {
        Effect::Done(receipt) => Some(receipt),
        _ => None,
    };
    db.prepare_cached(
        "UPDATE mails SET outcome = ?3, receipt = ?4, ended_at = ?5
         WHERE line = ?1 AND channel = ?2",
    )?
    .execute(params![
        key(line),
        channel.name(),
        events::mail_outcome(outcome),
        receipt,
        at.to_string()
    ])?;
    Ok(())
}

/// The earlier address's answer no longer concerns this mail; `events` keeps it.
fn readdress(
    db: &Connection,
    line: Line,
    channel: Channel,
    reader: &Reader,
) -> Result<(), rusqlite::Error> {
    let update = match channel {
        Channel::Pass => "UPDATE rows SET reader_json = ?2 WHERE line = ?1",
        Channel::Notice => "UPDATE rows SET notice_reader_json = ?2 WHERE line = ?1",
    };
    db.prepare_cached(update)?.execute(params![key(line), json(reader)?])?;
    db.prepare_cached("DELETE FROM mails WHERE line = ?1 AND channel = ?2")?
        .execute(params![key(line), channel.name()])?;
    Ok(())
}

fn end_intent(
    db: &Connection,
    intent: IntentId,
    event: &Event,
    given_up: Option<Timestamp>,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached("UPDATE intents SET outcome = ?2, given_up = ?3 WHERE intent = ?1")?
        .execute(params![intent.0, event.name(), given_up.map(|time| time.to_string())])?;
    Ok(())
}

/// Of this attempt only a pass that is known by its id can be alive.
fn clear_may_live(db: &Connection, intent: IntentId) -> Result<(), rusqlite::Error> {
    db.prepare_cached("UPDATE intents SET may_live = 0 WHERE intent = ?1")?.execute([intent.0])?;
    Ok(())
}

fn insert_pass(
    db: &Connection,
    line: Line,
    method: &MethodId,
    over: Timestamp,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "INSERT INTO passes (method_id, line, over_at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET ended = NULL",
    )?
    .execute(params![method.as_str(), key(line), over.to_string()])?;
    Ok(())
}

/// The latest possible expiry of the pass of an attempt that ended at `ended` by Graph's clock. This
/// machine's clock counts too, since the answer's Date may have been wrong.
fn latest_expiry(
    db: &Connection,
    intent: IntentId,
    ended: Timestamp,
) -> Result<Timestamp, rusqlite::Error> {
    let (asked, minted): (Asked, Timestamp) = db
        .prepare_cached("SELECT asked_json, minted_at FROM intents WHERE intent = ?1")?
        .query_row([intent.0], |row| Ok((from_json(row, 0)?, required(row, 1)?)))?;
    let ended = ended.max(later(minted, limits::ATTEMPT_TIMEOUT));
    let begins = asked.start.map_or(ended, |start| start.max(ended));
    Ok(expiry(begins, asked.lifetime_minutes))
}

/// When a pass expires, with slack for clocks.
fn expiry(begins: Timestamp, lifetime_minutes: u32) -> Timestamp {
    let lifetime = Duration::from_secs(u64::from(lifetime_minutes) * 60);
    later(begins, lifetime + limits::CLOCK_SLACK)
}

/// Of what the row got, or may have got, only `spared` can be alive.
fn mark_gone(
    db: &Connection,
    line: Line,
    proof: Proof,
    spared: Option<&MethodId>,
) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "UPDATE passes SET ended = ?2 WHERE line = ?1 AND ended IS NULL AND method_id IS NOT ?3",
    )?
    .execute(params![key(line), proof.name(), spared.map(MethodId::as_str)])?;
    db.prepare_cached("UPDATE intents SET may_live = 0 WHERE line = ?1")?.execute([key(line)])?;
    db.prepare_cached("UPDATE rows SET absent_since = NULL WHERE line = ?1")?
        .execute([key(line)])?;
    Ok(())
}

/// A settled row has no sealed pass any more; `passes` and `events` keep it.
fn clear_sealed(db: &Connection, line: Line) -> Result<(), rusqlite::Error> {
    db.prepare_cached(
        "UPDATE rows SET method_id = NULL, pass_start = NULL, pass_lifetime_minutes = NULL,
                         pass_one_time = NULL, handoff_file = NULL, looked_at = NULL,
                         sealed_at = NULL WHERE line = ?1",
    )?
    .execute([key(line)])?;
    db.prepare_cached("DELETE FROM sealed WHERE line = ?1")?.execute([key(line)])?;
    // A refused mail was about that pass; the next pass's mail has not been tried.
    db.prepare_cached("DELETE FROM mails WHERE line = ?1")?.execute([key(line)])?;
    Ok(())
}

/// Called when an operator has the row tried again.
fn reset_attempts(db: &Connection, line: Line) -> Result<(), rusqlite::Error> {
    db.prepare_cached("UPDATE rows SET attempts = 0 WHERE line = ?1")?.execute([key(line)])?;
    Ok(())
}

fn state_of(db: &Connection, line: Line) -> Result<(State, Option<UserId>), MoveError> {
    db.prepare_cached("SELECT state_json, user_id FROM rows WHERE line = ?1")?
        .query_row([key(line)], naming_row(line, |row| Ok((from_json(row, 0)?, optional(row, 1)?))))
        .optional()?
        .ok_or_else(|| LedgerError::UnknownLine(line).into())
}

// ---- reads -------------------------------------------------------------------------------

const ROW: &str = "SELECT r.line, r.user_principal_name, r.cells_json, r.wanted_json,
    r.state_json, r.user_id, r.display_name, r.asked_json, r.recipient_set, r.method_id,
    r.pass_start, r.pass_lifetime_minutes, r.pass_one_time, r.reason, r.foreign_method_id,
    r.attempts, r.handoff_file, i.intent, i.asked_json, i.graph_time, i.minted_at, i.given_up,
    i.outcome, i.may_live, r.reader_json, r.notice_reader_json,
    m.message_id, m.mail_date, m.recipient, m.courier, m.body, m.digest, m.outcome, m.receipt,
    m.ended_at,
    n.message_id, n.mail_date, n.recipient, n.courier, n.body, n.digest, n.outcome, n.receipt,
    n.ended_at
    FROM rows r LEFT JOIN intents i ON i.intent = r.latest_intent
    LEFT JOIN mails m ON m.line = r.line AND m.channel = 'pass'
    LEFT JOIN mails n ON n.line = r.line AND n.channel = 'notice'";
/// Where in [`ROW`] the columns of the attempt, the readers and the mails begin.
const INTENT_COLUMN: usize = 17;
const READER_COLUMN: usize = 24;
const MAIL_COLUMN: usize = 26;
const NOTICE_COLUMN: usize = 35;

/// Uses the index once per state, so that a page costs the same wherever it begins.
pub(super) fn rows(
    db: &Connection,
    states: &[Standing],
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<RowRecord>, rusqlite::Error> {
    if states.is_empty() {
        return Ok(Vec::new());
    }
    let lines = if Standing::ALL.iter().all(|state| states.contains(state)) {
        "SELECT line FROM rows WHERE line > ?1 ORDER BY line LIMIT ?2".to_owned()
    } else {
        // The names are our constants, so the statement is safe.
        let selects: Vec<String> = states
            .iter()
            .map(|state| {
                format!(
                    "SELECT line FROM (SELECT line FROM rows WHERE state = '{}' AND line > ?1 \
                     ORDER BY line LIMIT ?2)",
                    state.name()
                )
            })
            .collect();
        selects.join(" UNION ALL ")
    };
    let sql = format!("{ROW} WHERE r.line IN ({lines}) ORDER BY r.line LIMIT ?2");
    page(db, &sql, after, limit)
}

pub(super) fn rows_owing_notice(
    db: &Connection,
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<RowRecord>, rusqlite::Error> {
    let select = |state| {
        format!(
            "SELECT line FROM (SELECT line FROM rows WHERE notice = '{state}' AND line > ?1 \
             ORDER BY line LIMIT ?2)"
        )
    };
    let sql = format!(
        "{ROW} WHERE r.line IN ({} UNION ALL {}) ORDER BY r.line LIMIT ?2",
        select("due"),
        select("open")
    );
    page(db, &sql, after, limit)
}

/// The rows that a statement with the parameters `after` and `limit` selects.
fn page(
    db: &Connection,
    sql: &str,
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<RowRecord>, rusqlite::Error> {
    let page = collect_rows(db, sql, params![sql_after(after), sql_limit(limit)], limit)?;
    if let (Some(first), Some(last)) = (page.first(), page.last()) {
        no_other_channels(db, first.line, last.line)?;
    }
    Ok(page)
}

/// Allocates once: a vector that grows leaves holes in memory, page after page.
fn collect_rows(
    db: &Connection,
    sql: &str,
    params: impl Params,
    limit: usize,
) -> Result<Vec<RowRecord>, rusqlite::Error> {
    let mut rows = Vec::with_capacity(limit.min(limits::ROWS_PER_CHECK));
    let mut statement = db.prepare_cached(sql)?;
    for row in statement.query_map(params, row_record)? {
        rows.push(row?);
    }
    Ok(rows)
}

/// The first column of every selected row.
fn collect_lines(
    statement: &mut Statement<'_>,
    params: impl Params,
) -> Result<Vec<Line>, rusqlite::Error> {
    statement.query_map(params, |row| line_of(row, 0))?.collect()
}

/// Fails if these rows have a mail that [`ROW`] does not select and that would count as never tried.
fn no_other_channels(db: &Connection, first: Line, last: Line) -> Result<(), rusqlite::Error> {
    let other = db
        .prepare_cached(
            "SELECT line, channel FROM mails
             WHERE line BETWEEN ?1 AND ?2 AND channel NOT IN ('pass', 'notice') LIMIT 1",
        )?
        .query_row([key(first), key(last)], |row| Ok((line_of(row, 0)?, row.get(1)?)))
        .optional()?;
    match other {
        None => Ok(()),
        Some((line, channel)) => {
            let channel: String = channel;
            Err(unreadable(1, format!("row {line} has a mail \"{channel}\", which is no mail")))
        }
    }
}

pub(super) fn row(db: &Connection, line: Line) -> Result<Option<RowRecord>, rusqlite::Error> {
    no_other_channels(db, line, line)?;
    db.prepare_cached(&format!("{ROW} WHERE r.line = ?1"))?
        .query_row([key(line)], row_record)
        .optional()
}

pub(super) fn counts(db: &Connection) -> Result<Counts, rusqlite::Error> {
    let mut counts = Counts::default();
    let mut by_state =
        db.prepare_cached("SELECT state, count(*), min(line) FROM rows GROUP BY state")?;
    let mut found = by_state.query([])?;
    while let Some(row) = found.next()? {
        let name: String = row.get(0)?;
        let standing = Standing::ALL.into_iter().find(|state| state.name() == name);
        let line = line_of(row, 2)?;
        let unknown = || unreadable(0, format!("row {line}, state: no state is \"{name}\""));
        let standing = standing.ok_or_else(unknown)?;
        counts.by_standing[standing as usize] = unsigned(row, 1)?;
    }
    let mut by_notice = db.prepare_cached(
        "SELECT notice, count(*) FROM rows WHERE notice IS NOT NULL GROUP BY notice",
    )?;
    counts.unproven = db
        .prepare_cached(
            "SELECT count(*) FROM rows
             WHERE state = 'sealed' AND NOT json_extract(state_json, '$.proven')",
        )?
        .query_row([], |row| unsigned(row, 0))?;
    let mut found = by_notice.query([])?;
    while let Some(row) = found.next()? {
        match row.get_ref(0)?.as_str()? {
            "done" => counts.notices_sent = unsigned(row, 1)?,
            "due" | "open" => counts.notices_open += unsigned(row, 1)?,
            // It would be missing from the open notices.
            name => return Err(unreadable(0, format!("no notice is \"{name}\""))),
        }
    }
    let traffic = |row: &Row<'_>| Ok((unsigned(row, 0)?, unsigned(row, 1)?));
    (counts.requests, counts.throttled) = db
        .query_row("SELECT requests, throttled FROM about", [], traffic)
        .optional()?
        .unwrap_or_default();
    Ok(counts)
}

pub(super) fn about(db: &Connection) -> Result<About, rusqlite::Error> {
    db.query_row("SELECT about_json FROM about", [], |row| from_json(row, 0))
}

pub(super) fn closed(db: &Connection) -> Result<Option<Timestamp>, rusqlite::Error> {
    db.prepare_cached("SELECT closed_at FROM about")?.query_row([], |row| optional(row, 0))
}

pub(super) fn purged(db: &Connection) -> Result<Option<Timestamp>, rusqlite::Error> {
    db.query_row("SELECT purged_at FROM about", [], |row| optional(row, 0))
}

pub(super) fn checked_at(db: &Connection) -> Result<Timestamp, rusqlite::Error> {
    db.query_row("SELECT checked_at FROM about", [], |row| required(row, 0))
}

pub(super) fn ciphertext(db: &Connection, line: Line) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    db.prepare_cached("SELECT ciphertext FROM sealed WHERE line = ?1")?
        .query_row([key(line)], |row| row.get(0))
        .optional()
}

/// In the order of lines, without an index of states: with it every page would sort all remaining
/// rows, which takes minutes for a hundred thousand.
pub(super) const UNHANDED: &str = "
    SELECT r.line, r.recipient_set FROM rows r NOT INDEXED CROSS JOIN sealed s ON s.line = r.line
    WHERE (r.state = 'sealed' AND json_extract(r.state_json, '$.proven')
           OR r.state IN ('mailing', 'delivered'))
      AND r.handoff_file IS NULL AND r.line > ?1
    ORDER BY r.line LIMIT ?2";

pub(super) fn unhanded(
    db: &Connection,
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<Unhanded>, rusqlite::Error> {
    db.prepare_cached(UNHANDED)?
        .query_map(params![sql_after(after), sql_limit(limit)], |row| {
            Ok(Unhanded { line: line_of(row, 0)?, set: row.get(1)? })
        })?
        .collect()
}

pub(super) fn handoffs(db: &Connection) -> Result<Vec<HandoffRecord>, rusqlite::Error> {
    db.prepare("SELECT file, written_at, digest FROM handoffs ORDER BY written_at, file")?
        .query_map([], |row| {
            Ok(HandoffRecord { file: row.get(0)?, written: required(row, 1)?, digest: row.get(2)? })
        })?
        .collect()
}

pub(super) fn remains(
    db: &Connection,
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<Remains>, rusqlite::Error> {
    let mut found = db.prepare_cached(
        "SELECT line FROM (SELECT DISTINCT line FROM passes WHERE ended IS NULL AND line > ?1
                           ORDER BY line LIMIT ?2)
         UNION SELECT line FROM (SELECT DISTINCT line FROM intents WHERE may_live AND line > ?1
                                 ORDER BY line LIMIT ?2)
         ORDER BY line LIMIT ?2",
    )?;
    let lines = collect_lines(&mut found, params![sql_after(after), sql_limit(limit)])?;
    lines.into_iter().map(|line| remains_or_why_not(db, line)).collect()
}

pub(super) fn given_up(
    db: &Connection,
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<Remains>, rusqlite::Error> {
    let mut found = db.prepare_cached(
        "SELECT DISTINCT p.line FROM passes p JOIN rows r ON r.line = p.line
         WHERE p.ended = 'absent' AND p.line > ?1 AND r.state <> 'removed'
         AND NOT EXISTS (SELECT 1 FROM passes q WHERE q.line = p.line AND q.ended IS NULL)
         AND NOT EXISTS (SELECT 1 FROM intents i WHERE i.line = p.line AND i.may_live)
         ORDER BY p.line LIMIT ?2",
    )?;
    let lines = collect_lines(&mut found, params![sql_after(after), sql_limit(limit)])?;
    lines.into_iter().map(|line| remains_or_why_not(db, line)).collect()
}

/// A row that cannot be read must not stop the removal of the others' passes.
fn remains_or_why_not(db: &Connection, line: Line) -> Result<Remains, rusqlite::Error> {
    use rusqlite::Error::{FromSqlConversionFailure, QueryReturnedNoRows};
    let why = match remains_of(db, line) {
        Err(FromSqlConversionFailure(_, _, why)) => why.to_string(),
        Err(QueryReturnedNoRows) => format!("row {line} is missing"),
        other => return other,
    };
    let upn = db
        .prepare_cached("SELECT user_principal_name FROM rows WHERE line = ?1")?
        .query_row([key(line)], |row| row.get(0))
        .optional()?;
    Ok(Remains::unreadable(line, upn.unwrap_or_default(), why))
}

pub(super) fn lines(db: &Connection, standing: Standing) -> Result<Vec<Line>, rusqlite::Error> {
    let mut found = db.prepare_cached("SELECT line FROM rows WHERE state = ?1 ORDER BY line")?;
    collect_lines(&mut found, [standing.name()])
}

/// Rows about which the tables contradict each other.
pub(super) fn contradictions(
    db: &Connection,
) -> Result<Vec<(Line, String, String)>, rusqlite::Error> {
    let mut found = db.prepare(
        "SELECT line, max(upn), min(why) FROM (
             SELECT line, user_principal_name AS upn,
                    'it is ' || state || ' by one record and otherwise by another' AS why
             FROM rows
             WHERE iif(json_valid(state_json), json_extract(state_json, '$.state'), '') IS NOT state
             UNION ALL
             SELECT k.line, coalesce(r.user_principal_name, ''),
                    'a pass of it was sealed, and is not recorded any more'
             FROM (SELECT line FROM sealed
                   UNION SELECT line FROM intents WHERE outcome = 'sealed') k
             LEFT JOIN rows r ON r.line = k.line
             WHERE k.line NOT IN (SELECT line FROM passes)
             UNION ALL
             SELECT line, '', 'its row is missing'
             FROM (SELECT DISTINCT line FROM events) WHERE line NOT IN (SELECT line FROM rows)
             UNION ALL
             SELECT line, user_principal_name, 'its pass is not recorded any more' FROM rows
             WHERE method_id IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM passes p WHERE p.method_id = rows.method_id AND p.line = rows.line)
         ) GROUP BY line ORDER BY line",
    )?;
    found.query_map([], |row| Ok((line_of(row, 0)?, row.get(1)?, row.get(2)?)))?.collect()
}

pub(super) fn remains_of(db: &Connection, line: Line) -> Result<Remains, rusqlite::Error> {
    let passes = db
        .prepare_cached(
            "SELECT method_id, over_at, ended FROM passes WHERE line = ?1 ORDER BY method_id",
        )?
        .query_map(
            [key(line)],
            naming_row(line, |row| Ok((required(row, 0)?, required(row, 1)?, optional(row, 2)?))),
        )?
        .collect::<Result<Vec<(MethodId, Timestamp, Option<Proof>)>, _>>()?;
    let (mut alive, mut gone, mut given_up) = (Vec::new(), Vec::new(), Vec::new());
    for (method, over, ended) in passes {
        match ended {
            None => alive.push((method, over)),
            Some(Proof::Deleted) => gone.push(method),
            Some(Proof::Replaced | Proof::Over | Proof::Absent) => given_up.push(method),
        }
    }
    let attempts = attempts(db, line)?;
    db.prepare_cached(
        "SELECT user_principal_name, user_id, state_json, absent_since, looked_at IS NOT NULL,
                (SELECT at FROM events e WHERE e.line = rows.line AND event = 'not listed'
                 AND json_extract(event_json, '$.graphTime') = absent_since
                 ORDER BY seq DESC LIMIT 1),
                EXISTS (SELECT 1 FROM intents i
                        WHERE i.line = rows.line AND i.user_id IS NOT rows.user_id)
         FROM rows WHERE line = ?1",
    )?
    .query_row(
        [key(line)],
        naming_row(line, |row| {
            Ok(Remains {
                line,
                upn: row.get(0)?,
                unreadable: None,
                user: if row.get(6)? { None } else { optional(row, 1)? },
                state: from_json(row, 2)?,
                alive: alive.clone(),
                gone: gone.clone(),
                given_up: given_up.clone(),
                attempts: attempts.clone(),
                absent_since: optional(row, 3)?,
                absent_at: optional(row, 5)?,
                seen: row.get(4)?,
                deleted: Vec::new(),
            })
        }),
    )
}

/// Attempts that may have created a pass, the oldest first.
fn attempts(db: &Connection, line: Line) -> Result<Vec<IntentRecord>, rusqlite::Error> {
    db.prepare_cached(
        "SELECT intent, asked_json, graph_time, minted_at, given_up, outcome, may_live
         FROM intents WHERE line = ?1
         AND (may_live OR coalesce(outcome, '') NOT IN ('not effected', 'refused'))
         ORDER BY intent",
    )?
    .query_map([key(line)], naming_row(line, |row| attempt(row, 0)))?
    .collect()
}

pub(super) fn remaining(db: &Connection) -> Result<u64, rusqlite::Error> {
    db.query_row(
        "SELECT count(*) FROM (SELECT line FROM passes WHERE ended IS NULL
                               UNION SELECT line FROM intents WHERE may_live)",
        [],
        |row| unsigned(row, 0),
    )
}

/// Rows due for a second look: sealed at `?3` or earlier by Graph's clock, and proven.
const TO_LOOK_AT: &str = "sealed_at IS NOT NULL AND sealed_at <= ?3
    AND (state = 'delivered'
         OR (state = 'mailing' AND json_extract(state_json, '$.mail.lost'))
         OR (state = 'sealed' AND json_extract(state_json, '$.proven')))";

pub(super) fn rows_to_look_at(
    db: &Connection,
    before: Timestamp,
    seen_before: Option<Timestamp>,
    after: Option<Line>,
    limit: usize,
) -> Result<Vec<RowRecord>, rusqlite::Error> {
    // Two statements, since only one can use an index.
    let looked =
        if seen_before.is_some() { "looked_at < ?4" } else { "looked_at IS NULL AND ?4 IS NULL" };
    let sql = format!(
        "{ROW} WHERE r.line IN (SELECT line FROM rows WHERE line > ?1 AND {looked} AND {TO_LOOK_AT}
                                ORDER BY line LIMIT ?2) ORDER BY r.line"
    );
    let seen_before = seen_before.map(|time| time.to_string());
    let params = params![sql_after(after), sql_limit(limit), before.as_second(), seen_before];
    collect_rows(db, &sql, params, limit)
}

pub(super) fn waiting_for_look(
    db: &Connection,
    seen_before: Option<Timestamp>,
) -> Result<u64, rusqlite::Error> {
    let sql = format!(
        "SELECT count(*) FROM rows WHERE line > ?1 AND (looked_at IS NULL OR looked_at < ?2)
         AND {TO_LOOK_AT}"
    );
    let seen_before = seen_before.map(|time| time.to_string());
    db.query_row(&sql, params![-1, seen_before, i64::MAX], |row| unsigned(row, 0))
}

pub(super) fn strays(db: &Connection, limit: usize) -> Result<Vec<Line>, rusqlite::Error> {
    let mut found = db.prepare(
        "SELECT line FROM rows WHERE state IN ('checked', 'ineligible', 'skipped', 'failed')
         AND (line IN (SELECT line FROM passes WHERE ended IS NULL)
              OR line IN (SELECT line FROM intents WHERE may_live))
         ORDER BY line LIMIT ?1",
    )?;
    collect_lines(&mut found, [sql_limit(limit)])
}

pub(super) fn has_open_attempts(db: &Connection) -> Result<bool, rusqlite::Error> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM intents WHERE may_live)", [], |row| row.get(0))
}

pub(super) fn looked_at(
    db: &Connection,
    lines: &[Line],
    graph_time: Timestamp,
) -> Result<(), rusqlite::Error> {
    let mut mark = db.prepare_cached("UPDATE rows SET looked_at = ?2 WHERE line = ?1")?;
    for line in lines {
        mark.execute(params![key(*line), graph_time.to_string()])?;
    }
    Ok(())
}

pub(super) fn history(
    db: &Connection,
    line: Line,
) -> Result<Vec<(Timestamp, Event)>, rusqlite::Error> {
    db.prepare_cached("SELECT at, event_json FROM events WHERE line = ?1 ORDER BY seq")?
        .query_map(
            [key(line)],
            naming_row(line, |row| Ok((required(row, 0)?, from_json(row, 1)?))),
        )?
        .collect()
}

/// Whether this run issued the pass.
pub(super) fn has_pass(db: &Connection, method: &MethodId) -> Result<bool, rusqlite::Error> {
    db.prepare_cached("SELECT 1 FROM passes WHERE method_id = ?1")?.exists([method.as_str()])
}

fn row_record(row: &Row<'_>) -> Result<RowRecord, rusqlite::Error> {
    let line = line_of(row, 0)?;
    naming_row(line, |row| read_row(line, row))(row)
}

/// Makes a read error name the row of the wave and the column.
fn naming_row<T>(
    line: Line,
    read: impl Fn(&Row<'_>) -> Result<T, rusqlite::Error>,
) -> impl Fn(&Row<'_>) -> Result<T, rusqlite::Error> {
    use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType};
    move |row| {
        read(row).map_err(|error| match error {
            FromSqlConversionFailure(column, _, why) => {
                let name = row.as_ref().column_name(column).unwrap_or("a column");
                unreadable(column, format!("row {line}, {name}: {why}"))
            }
            InvalidColumnType(column, name, found) => {
                unreadable(column, format!("row {line}, {name}: it is {found}"))
            }
            other => other,
        })
    }
}

fn read_row(line: Line, row: &Row<'_>) -> Result<RowRecord, rusqlite::Error> {
    Ok(RowRecord {
        line,
        upn: row.get(1)?,
        cells: from_json(row, 2)?,
        wanted_json: row.get(3)?,
        state: from_json(row, 4)?,
        user: optional(row, 5)?,
        display_name: row.get(6)?,
        asked: json_or_null(row, 7)?,
        set: row.get(8)?,
        issued: issued(row)?,
        reason: row.get(13)?,
        foreign: optional(row, 14)?,
        intent: latest_attempt(row)?,
        reader: json_or_null(row, READER_COLUMN)?,
        mail: mail_record(row, MAIL_COLUMN)?,
        notice_reader: json_or_null(row, READER_COLUMN + 1)?,
        notice: mail_record(row, NOTICE_COLUMN)?,
        attempts: row.get(15)?,
        handoff: row.get(16)?,
    })
}

fn issued(row: &Row<'_>) -> Result<Option<IssuedRecord>, rusqlite::Error> {
    let Some(method) = optional(row, 9)? else { return Ok(None) };
    Ok(Some(IssuedRecord {
        method,
        start: optional(row, 10)?,
        lifetime_minutes: row.get(11)?,
        one_time: row.get(12)?,
    }))
}

fn latest_attempt(row: &Row<'_>) -> Result<Option<IntentRecord>, rusqlite::Error> {
    let number: Option<i64> = row.get(INTENT_COLUMN)?;
    number.map(|_| attempt(row, INTENT_COLUMN)).transpose()
}

fn attempt(row: &Row<'_>, at: usize) -> Result<IntentRecord, rusqlite::Error> {
    Ok(IntentRecord {
        id: IntentId(row.get(at)?),
        asked: from_json(row, at + 1)?,
        graph_time: required(row, at + 2)?,
        minted: required(row, at + 3)?,
        given_up: optional(row, at + 4)?,
        outcome: row.get(at + 5)?,
        may_live: row.get(at + 6)?,
    })
}

fn mail_record(row: &Row<'_>, at: usize) -> Result<Option<MailRecord>, rusqlite::Error> {
    let Some(message_id) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
    let posted = Posted {
        message_id,
        date: required(row, at + 1)?,
        to: row.get(at + 2)?,
        courier: row.get(at + 3)?,
        body: row.get(at + 4)?,
        digest: row.get(at + 5)?,
    };
    let (outcome, receipt, ended) = (row.get(at + 6)?, row.get(at + 7)?, optional(row, at + 8)?);
    Ok(Some(MailRecord { posted, outcome, receipt, ended }))
}

// ---- values ------------------------------------------------------------------------------

/// A line beyond the range of `SQLite` is beyond [`limits::MAX_ROWS`] too, and names no row.
fn key(line: Line) -> i64 {
    i64::try_from(line.0).unwrap_or(i64::MAX)
}

fn sql_after(after: Option<Line>) -> i64 {
    after.map_or(-1, key)
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn line_of(row: &Row<'_>, column: usize) -> Result<Line, rusqlite::Error> {
    unsigned(row, column).map(Line)
}

fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn json(value: &impl Serialize) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| unreadable(column, error))
}

fn json_or_null<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> Result<Option<T>, rusqlite::Error> {
    row.get::<_, Option<String>>(column)?.map(|_| from_json(row, column)).transpose()
}

fn optional<T>(row: &Row<'_>, column: usize) -> Result<Option<T>, rusqlite::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| unreadable(column, error))).transpose()
}

fn required<T>(row: &Row<'_>, column: usize) -> Result<T, rusqlite::Error>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    optional(row, column)?.ok_or_else(|| unreadable(column, "it is empty"))
}

fn unreadable(
    column: usize,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.into())
}
