//! Promises that whoever is asked about a run from elsewhere sees to whom its mails would go, as
//! its rows have it: that is what they are sent by, whatever its options say. Must never take a
//! row's word for it that it was meant.

use std::collections::{BTreeMap, BTreeSet};

use super::belonging::Belonging;
use super::{Failure, World};
use crate::output::{count, shown};
use tapwave_core::exit::Exit;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_ledger::{Channel, Event, Ledger, MailOptions, RowRecord, Standing, To};
use tapwave_mail::template::Mailbox;
use tapwave_pipeline::wave::RowOptions;

/// Most addresses that are told of each kind.
const SHOWN: usize = 5;

/// To whom mails of one kind go: each address, by the part behind its `@`.
#[derive(Default)]
struct Addresses(BTreeMap<String, BTreeSet<String>>);

impl Addresses {
    fn add(&mut self, address: &str) {
        let address = address.to_lowercase();
        let place = address.rsplit('@').next().unwrap_or_default().to_owned();
        self.0.entry(place).or_default().insert(address);
    }

    /// How many, and the first of them, those of the rarest places before others: one that was
    /// smuggled in is not to be lost among hundreds.
    fn in_words(&self) -> Option<String> {
        let mut places: Vec<_> = self.0.iter().collect();
        places.sort_by_key(|(place, addresses)| (addresses.len(), *place));
        let all: Vec<&String> = places.into_iter().flat_map(|(_, addresses)| addresses).collect();
        if all.is_empty() {
            return None;
        }
        let mut first: Vec<String> = all.iter().take(SHOWN).map(|address| shown(address)).collect();
        if all.len() > SHOWN {
            first.push("…".to_owned());
        }
        let number = count(all.len() as u64, "address", "addresses");
        Some(format!("{number} ({})", first.join(", ")))
    }
}

/// What is told of a run's mails: to whom the passes go, and the notices.
pub(super) async fn of(ledger: &Ledger) -> Result<Vec<String>, Failure> {
    let (mut mails, mut notices) = (Addresses::default(), Addresses::default());
    let mut pages = ledger.pages(&Standing::ALL, limits::ROWS_PER_CHECK);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            if let Some(address) = address(row)? {
                mails.add(&address);
            }
            if let Some(reader) = &row.notice_reader {
                notices.add(&reader.address);
            }
        }
    }
    let line = |what: &str, addresses: &Addresses| {
        addresses.in_words().map(|addresses| format!("{what} to: {addresses}"))
    };
    Ok([line("mail goes", &mails), line("notice goes", &notices)].into_iter().flatten().collect())
}

/// The one whom the check found, else, where nobody had asked for mail, the wave's.
fn address(row: &RowRecord) -> Result<Option<String>, Failure> {
    if let Some(reader) = &row.reader {
        return Ok(Some(reader.address.clone()));
    }
    let wanted: RowOptions = serde_json::from_str(&row.wanted_json)
        .map_err(|_| row.lacks("what the wave asked for it cannot be read"))?;
    Ok(wanted.deliver_to)
}

impl World {
    /// Makes sure that a run which is new here mails nobody but those whom its options fix, or whom
    /// somebody has named since, or names now.
    pub(super) async fn mails_whom_it_says(
        &self,
        belonging: &Belonging,
        ledger: &Ledger,
        readdressed: &[(Line, Mailbox)],
    ) -> Result<(), Failure> {
        let mail = ledger.about().options.mail.as_ref();
        let Some(mail) = mail.filter(|_| belonging.is_new_here()) else { return Ok(()) };
        let fixed = [(Channel::Pass, fixed(&mail.to)?), (Channel::Notice, fixed(&mail.notice_to)?)];
        let mut others = Vec::new();
        let mut pages = ledger.pages(&Standing::ALL, limits::ROWS_PER_CHECK);
        while let Some(rows) = pages.next().await? {
            for row in &rows {
                for (channel, fixed) in &fixed {
                    let reader = match channel {
                        Channel::Pass => &row.reader,
                        Channel::Notice => &row.notice_reader,
                    };
                    let (Some(fixed), Some(reader)) = (fixed, reader) else { continue };
                    if readdressed.iter().any(|(line, _)| *line == row.line) {
                        continue;
                    }
                    let address = reader.address.to_lowercase();
                    if !fixed.contains(&address) && !was_named(ledger, row, *channel).await? {
                        let (line, upn) = (row.line, shown(&row.upn));
                        others.push(format!("line {line}, {upn}, to {}", shown(&address)));
                    }
                }
            }
        }
        if others.is_empty() { Ok(()) } else { Err(Failure::other_readers(&others)) }
    }
}

/// The addresses, if these places are nothing else.
fn fixed(places: &[To]) -> Result<Option<BTreeSet<String>>, Failure> {
    let mut addresses = BTreeSet::new();
    for place in places {
        let To::Address(text) = place else { return Ok(None) };
        let mailbox: Mailbox = text.parse().map_err(|_| {
            let what = format!("the run mails to \"{}\", which is no address", shown(text));
            Failure::new(Exit::Usage, what, &["work on the machine that made the run"])
        })?;
        addresses.insert(mailbox.address().to_lowercase());
    }
    Ok(Some(addresses).filter(|addresses| !addresses.is_empty()))
}

/// Whether `--readdress` has given the row the reader that it has.
async fn was_named(ledger: &Ledger, row: &RowRecord, of: Channel) -> Result<bool, Failure> {
    let has = match of {
        Channel::Pass => &row.reader,
        Channel::Notice => &row.notice_reader,
    };
    let history = ledger.history(row.line).await?;
    let latest = history.into_iter().rev().find_map(|(_, event)| match event {
        Event::Readdressed { channel, reader } if channel == of => Some(*reader),
        _ => None,
    });
    Ok(latest.is_some() && latest == *has)
}

/// How a run mails, for people: what, to whom, and from which templates.
pub(super) fn manner(mail: &MailOptions) -> String {
    let place = |to: &To| match to {
        To::Column => "column deliverTo".to_owned(),
        To::Manager => "manager".to_owned(),
        To::OtherMail => "other mail".to_owned(),
        To::Mail => "own mailbox".to_owned(),
        To::Address(address) => shown(address),
    };
    let places = |to: &[To]| to.iter().map(place).collect::<Vec<_>>().join(", ");
    let mut words = format!("{} to {}", shown(&mail.body), places(&mail.to));
    if !mail.notice_to.is_empty() {
        words = format!("{words}; notice to {}", places(&mail.notice_to));
    }
    match &mail.templates {
        Some(folder) => format!("{words}; templates in {}", folder.display()),
        None => words,
    }
}
