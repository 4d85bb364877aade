//! Promises what a template may know of a person and a pass, besides the code. Must never
//! hold a code.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use tapwave_core::ids::Upn;

/// Everything a letter is rendered from, but for the code. Frozen values give frozen bytes.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whom the pass is for.
    pub upn: Upn,
    /// The person's name; the userPrincipalName is shown where it is empty.
    pub name: String,
    /// The person's manager, if the directory knows one.
    pub manager: Option<NamedPerson>,
    /// Every column of the wave, by its name in the header.
    pub columns: BTreeMap<String, String>,
    /// When the pass begins to work; if Graph said nothing, when it was issued.
    pub start: Timestamp,
    /// For how many minutes it works from then on.
    pub lifetime_minutes: u32,
    /// Whether it works once only.
    pub one_time: bool,
    /// The reader's time zone.
    pub zone: TimeZone,
    /// Whom to call, as the settings have it.
    pub support: Option<String>,
    /// Who has the pass, for a notice.
    pub holder: Option<NamedPerson>,
}

/// Somebody besides the person whom the pass is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPerson {
    /// The name shown to people; empty if there is none.
    pub name: String,
    /// The mail address; empty if there is none.
    pub mail: String,
}

impl Facts {
    /// The name to greet with.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        if self.name.trim().is_empty() { self.upn.as_str() } else { &self.name }
    }
}
