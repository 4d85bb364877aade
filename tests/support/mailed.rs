//! Promises waves whose readers live elsewhere, and what a relay took for each of them.

use std::collections::BTreeMap;

use super::smtp::Relay;

/// user1 to userN, each with a mailbox of their own elsewhere.
pub(crate) fn wave(rows: u64) -> String {
    let lines = (1..=rows).map(|n| format!("user{n}@contoso.example,reader{n}@home.example\n"));
    format!("userPrincipalName,deliverTo\n{}", lines.collect::<String>())
}

/// How often the relay took a mail for each reader.
pub(crate) fn taken(relay: &Relay) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for mail in &relay.seen().taken {
        let [to] = &mail.to[..] else { panic!("one reader, not {:?}", mail.to) };
        let address = to.split(['<', '>']).nth(1).expect("an address").to_owned();
        *counts.entry(address).or_insert(0) += 1;
    }
    counts
}

/// How many rows of a status stand so.
pub(crate) fn count_state(rows: &[serde_json::Value], state: &str) -> usize {
    rows.iter().filter(|row| row["state"] == state).count()
}
