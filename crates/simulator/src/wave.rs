//! Promises a plausible tenant for any wave: everybody in it exists, and may have a pass.

use jiff::Timestamp;

use super::directory::DirectoryUser;
use super::options::Options;
use super::policy::PolicyTarget;
use super::tenant::Tenant;

const GIVEN: [&str; 12] = [
    "Ada", "Björn", "Chloé", "Dmitri", "Emre", "Fatima", "Grace", "Hiroshi", "Inês", "Jürgen",
    "Kwame", "Łucja",
];
const FAMILY: [&str; 12] = [
    "Almeida",
    "Brandt",
    "Čapek",
    "D'Arcy",
    "Eriksen",
    "Fischer",
    "García",
    "Hughes",
    "Ivanova",
    "Johansson",
    "Kowalski",
    "O'Neil",
];
const LANGUAGES: [Option<&str>; 5] =
    [None, Some("en-US"), Some("de-DE"), Some("fr-FR"), Some("pt-BR")];

/// Users in one team; its first is the manager of the others.
const TEAM: usize = 10;

impl Tenant {
    /// A tenant in which each of these users exists, under an invented name, in the group
    /// "Onboarding", which is inside "TAP users", which the policy includes.
    pub fn for_wave<U: Into<String>>(upns: impl IntoIterator<Item = U>, seed: u64) -> Self {
        let mut tenant = Self::new(Options::seeded(seed));
        let onboarding = tenant.add_group("Onboarding");
        let included = tenant.add_group("TAP users");
        tenant.nest(Timestamp::MIN, onboarding, included);
        tenant.policy.include = vec![PolicyTarget::group(included)];
        let mut manager = None;
        for (index, upn) in upns.into_iter().enumerate() {
            let upn = upn.into();
            if index % TEAM == 0 {
                manager = Some(upn.clone());
            }
            let user = tenant.invent(upn.clone(), manager.clone().filter(|name| *name != upn));
            tenant.add_user(user);
            tenant.join(Timestamp::MIN, &upn, onboarding);
        }
        tenant
    }

    fn invent(&mut self, upn: String, manager: Option<String>) -> DirectoryUser {
        let given = GIVEN[self.rng.usize(..GIVEN.len())];
        let family = FAMILY[self.rng.usize(..FAMILY.len())];
        let name = upn.split('@').next().unwrap_or_default();
        let private = format!("{name}@personal.example");
        DirectoryUser {
            other_mails: vec![private],
            manager,
            preferred_language: LANGUAGES[self.rng.usize(..LANGUAGES.len())].map(Into::into),
            ..DirectoryUser::named(upn, format!("{given} {family}"))
        }
    }
}
