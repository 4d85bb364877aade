//! The values that a template gets besides the code. Must never hold a code.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use tapwave_core::ids::Upn;

/// Everything that a mail is rendered from, except the code. The same values give the same bytes.
#[derive(Debug, Clone)]
pub struct Facts {
    pub upn: Upn,
    /// The person's name; the userPrincipalName is shown where it is empty.
    pub name: String,
    /// The person's manager, if the directory knows one.
    pub manager: Option<NamedPerson>,
    /// Every column of the wave, by name.
    pub columns: BTreeMap<String, String>,
    /// When the pass begins to work; if Graph does not say, when it was issued.
    pub start: Timestamp,
    pub lifetime_minutes: u32,
    pub one_time: bool,
    pub zone: TimeZone,
    /// Whom to call, from the settings.
    pub support: Option<String>,
    /// Who has the pass, for a notice.
    pub holder: Option<NamedPerson>,
}

/// Somebody other than the person whom the pass is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPerson {
    /// The name shown to people; empty if there is none.
    pub name: String,
    /// The mail address; empty if there is none.
    pub mail: String,
}

impl Facts {
    #[must_use]
    pub fn shown_name(&self) -> &str {
        if self.name.trim().is_empty() { self.upn.as_str() } else { &self.name }
    }
}
