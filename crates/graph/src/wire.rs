//! Promises that Graph's JSON stays in this file: private shapes in, domain values out.
//!
//! Every property is optional here, because Graph's are all nullable; what must be there is
//! demanded when a shape is turned into a value. Must never log what it reads.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::transport::Method;
use tapwave_core::ids::{GroupId, MethodId, UserId};
use tapwave_ledger::Asked;
use tapwave_seal::Pass;

/// Reads a `null` as what is meant by it where the metadata allows one: an empty list or text.
fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Graph's error object.
#[derive(Deserialize)]
pub(super) struct ErrorObject {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) code: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) message: String,
}

/// The error in a body, if there is one.
pub(super) fn error(body: &[u8]) -> Option<ErrorObject> {
    #[derive(Deserialize)]
    struct Outer {
        error: ErrorObject,
    }
    serde_json::from_slice::<Outer>(body).ok().map(|outer| outer.error)
}

/// A pass as Graph describes it on every read: without the code.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundPass {
    pub id: MethodId,
    /// When Graph created it.
    #[serde(default)]
    pub created_date_time: Option<Timestamp>,
    /// When it begins to work.
    #[serde(default)]
    pub start_date_time: Option<Timestamp>,
    /// Minutes from the start.
    #[serde(default)]
    pub lifetime_in_minutes: Option<u32>,
    /// Whether it works once only.
    #[serde(default)]
    pub is_usable_once: Option<bool>,
    /// Whether it works now; some tenants leave it out.
    #[serde(default)]
    pub is_usable: Option<bool>,
    /// Why it does or does not: `EnabledByPolicy`, `DisabledByPolicy`, `Expired`,
    /// `NotYetValid`, `OneTimeUsed`, or a word yet unknown.
    #[serde(default)]
    pub method_usability_reason: Option<String>,
}

impl FoundPass {
    /// When it stops working by its lifetime, if Graph told enough to know.
    #[must_use]
    pub fn end(&self) -> Option<Timestamp> {
        let start = self.start_date_time.or(self.created_date_time)?;
        let lifetime = std::time::Duration::from_secs(u64::from(self.lifetime_in_minutes?) * 60);
        Some(tapwave_core::clock::later(start, lifetime))
    }

    /// Whether it works now or will: not used up, not expired. In doubt, yes.
    #[must_use]
    pub fn is_live(&self, graph_now: Timestamp) -> bool {
        match self.method_usability_reason.as_deref() {
            Some("Expired" | "OneTimeUsed") => false,
            Some(_) => true,
            None => self.is_usable == Some(true) || self.end().is_none_or(|end| end > graph_now),
        }
    }

    /// Whether the policy does not let it work.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.method_usability_reason.as_deref() == Some("DisabledByPolicy")
    }

    /// Whether it has been used up.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.method_usability_reason.as_deref() == Some("OneTimeUsed")
    }
}

/// The 201: the only answer that ever holds the code.
pub struct CreatedPass {
    /// What a later read will say too.
    pub found: FoundPass,
    /// The code, if the answer holds a usable one.
    pub pass: Option<Pass>,
}

/// Reads a 201. `None` if it does not even name the pass's id: one that is named is known for
/// ever, whether or not its code can be used.
pub(super) fn created_pass(body: &[u8]) -> Option<CreatedPass> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Secret {
        temporary_access_pass: Pass,
    }
    // Two readings of one buffer: one shape that flattens the other would take the code
    // through serde's own buffers, which are plain strings.
    let secret = serde_json::from_slice::<Secret>(body).ok();
    let found = serde_json::from_slice(body).ok()?;
    Some(CreatedPass { found, pass: secret.map(|secret| secret.temporary_access_pass) })
}

/// The body of the POST. Times go out in UTC with `Z`: anything else is refused as past.
pub(super) fn create_body(asked: &Asked) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Create {
        #[serde(skip_serializing_if = "Option::is_none")]
        start_date_time: Option<String>,
        lifetime_in_minutes: u32,
        is_usable_once: bool,
    }
    json(&Create {
        start_date_time: asked.start.map(|start| start.to_string()),
        lifetime_in_minutes: asked.lifetime_minutes,
        is_usable_once: asked.one_time,
    })
}

/// The tenant's Temporary Access Pass policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// `enabled` or `disabled`.
    #[serde(default)]
    pub state: Option<String>,
    /// Characters in a pass, 8–48.
    #[serde(default)]
    pub default_length: Option<u32>,
    /// What a pass gets when nothing is asked.
    #[serde(default)]
    pub default_lifetime_in_minutes: Option<u32>,
    /// The least that may be asked.
    #[serde(default)]
    pub minimum_lifetime_in_minutes: Option<u32>,
    /// The most that may be asked.
    #[serde(default)]
    pub maximum_lifetime_in_minutes: Option<u32>,
    /// True forces every pass to be one-time.
    #[serde(default)]
    pub is_usable_once: Option<bool>,
    /// Who is in.
    #[serde(default, deserialize_with = "or_default")]
    pub include_targets: Vec<Target>,
    /// Who is out; wins over `include_targets`.
    #[serde(default, deserialize_with = "or_default")]
    pub exclude_targets: Vec<Target>,
}

/// One entry of a policy's targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// A group's or user's object id, or `all_users`.
    #[serde(default, deserialize_with = "or_default")]
    pub id: String,
    /// `user` or `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<String>,
    /// Kept as it was found when a list of targets is written back; excluded ones have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_registration_required: Option<bool>,
}

impl Target {
    /// The id that means everyone; its kind is group.
    const ALL_USERS: &'static str = "all_users";

    /// Everyone in the tenant.
    #[must_use]
    pub fn everyone() -> Self {
        Self::named(Self::ALL_USERS)
    }

    /// A group and all inside it.
    #[must_use]
    pub fn group(id: GroupId) -> Self {
        Self::named(&id.to_string())
    }

    fn named(id: &str) -> Self {
        let group = Some("group".to_owned());
        Self { id: id.to_owned(), target_type: group, is_registration_required: None }
    }

    /// Whether it means everyone.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        self.id.eq_ignore_ascii_case(Self::ALL_USERS)
    }

    /// Whether it means one user. What does not say is a group.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.target_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("user"))
    }
}

/// What of the policy is to change; what is left out keeps its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPatch {
    /// `enabled` or `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Characters in a pass. (A widely copied script sends `length`, which does not exist.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_length: Option<u32>,
    /// Minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_lifetime_in_minutes: Option<u32>,
    /// Minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_lifetime_in_minutes: Option<u32>,
    /// Minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_lifetime_in_minutes: Option<u32>,
    /// True forces every pass to be one-time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_usable_once: Option<bool>,
    /// The whole list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_targets: Option<Vec<Target>>,
    /// The whole list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_targets: Option<Vec<Target>>,
}

/// The body of the PATCH: the change and the type without which Graph refuses it.
pub(super) fn patch_body(patch: &PolicyPatch) -> Vec<u8> {
    #[derive(Serialize)]
    struct TypedTarget<'a> {
        #[serde(rename = "@odata.type")]
        kind: &'static str,
        #[serde(flatten)]
        patch: &'a PolicyPatch,
    }
    json(&TypedTarget {
        kind: "#microsoft.graph.temporaryAccessPassAuthenticationMethodConfiguration",
        patch,
    })
}

/// A user, as far as the check needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub id: UserId,
    /// As the directory spells it.
    #[serde(default)]
    pub user_principal_name: Option<String>,
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// A disabled account cannot use a pass.
    #[serde(default)]
    pub account_enabled: Option<bool>,
    /// How the user signs in; an external guest has a federated identity of another tenant.
    #[serde(default)]
    pub identities: Option<Vec<Identity>>,
    /// The mailbox.
    #[serde(default)]
    pub mail: Option<String>,
    /// Private and other addresses.
    #[serde(default)]
    pub other_mails: Option<Vec<String>>,
    /// A language tag such as `de-DE`.
    #[serde(default)]
    pub preferred_language: Option<String>,
}

/// A user's manager, as far as a letter needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manager {
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The mailbox.
    #[serde(default)]
    pub mail: Option<String>,
    /// A language tag.
    #[serde(default)]
    pub preferred_language: Option<String>,
}

/// One way a user signs in.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Such as `userPrincipalName` or `federated`.
    #[serde(default)]
    pub sign_in_type: Option<String>,
    /// Such as `ExternalAzureAD`.
    #[serde(default)]
    pub issuer: Option<String>,
}

impl User {
    /// The properties to `$select`.
    pub(super) const SELECT: &'static str = "id,userPrincipalName,displayName,accountEnabled,identities,mail,otherMails,preferredLanguage";

    /// Told whole, switched on and no guest: nothing here would keep a pass from them.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.account_enabled == Some(true) && self.identities.is_some() && !self.is_external_guest()
    }

    /// Whether Graph would refuse a pass because the person signs in elsewhere. Internal
    /// guests are allowed.
    #[must_use]
    pub fn is_external_guest(&self) -> bool {
        self.identities.iter().flatten().any(|identity| {
            identity.sign_in_type.as_deref() == Some("federated")
                && identity.issuer.as_deref() == Some("ExternalAzureAD")
        })
    }
}

/// A group, as far as the check needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub id: GroupId,
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// `Public`, `Private`, `HiddenMembership`, or nothing for a security group.
    #[serde(default)]
    pub visibility: Option<String>,
}

impl Group {
    /// Whether a token without `Member.Read.Hidden` may see nobody in it.
    #[must_use]
    pub fn hides_members(&self) -> bool {
        self.visibility.as_deref().is_some_and(|it| it.eq_ignore_ascii_case("HiddenMembership"))
    }
}

/// One page of a listing.
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct ListPage<T> {
    /// Without it, the answer is no listing at all.
    #[serde(deserialize_with = "or_default")]
    pub(super) value: Vec<T>,
    #[serde(rename = "@odata.nextLink")]
    pub(super) next_link: Option<String>,
}

/// An object of which only the id is asked.
#[derive(Deserialize)]
pub(super) struct IdOnly {
    pub(super) id: UserId,
}

/// A request inside a `$batch`. Only what may be repeated: a read, or a DELETE by id.
#[derive(Debug, Clone)]
pub struct BatchedRequest {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) body: Option<serde_json::Value>,
}

impl BatchedRequest {
    pub(super) fn is_delete(&self) -> bool {
        self.method == Method::Delete
    }

    pub(super) fn get(target: String) -> Self {
        Self { method: Method::Get, target, body: None }
    }

    pub(super) fn delete(target: String) -> Self {
        Self { method: Method::Delete, target, body: None }
    }

    /// A POST that only asks, such as `checkMemberGroups`.
    pub(super) fn ask(target: String, body: serde_json::Value) -> Self {
        Self { method: Method::Post, target, body: Some(body) }
    }
}

/// The outer body of a `$batch`.
pub(super) fn batch_body(requests: &[(String, &BatchedRequest)]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Batch<'a> {
        requests: Vec<BatchEntry<'a>>,
    }
    #[derive(Serialize)]
    struct BatchEntry<'a> {
        id: &'a str,
        method: &'a str,
        url: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        headers: Option<Headers>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<&'a serde_json::Value>,
    }
    #[derive(Serialize)]
    struct Headers {
        #[serde(rename = "Content-Type")]
        content_type: &'static str,
    }
    let requests = requests
        .iter()
        .map(|(id, inner)| BatchEntry {
            id,
            method: inner.method.as_str(),
            url: &inner.target,
            headers: inner.body.as_ref().map(|_| Headers { content_type: "application/json" }),
            body: inner.body.as_ref(),
        })
        .collect();
    json(&Batch { requests })
}

/// One answer inside a `$batch`.
#[derive(Deserialize)]
pub(super) struct BatchAnswer<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    pub(super) status: u16,
    #[serde(default)]
    headers: Option<std::collections::HashMap<String, serde_json::Value>>,
    #[serde(borrow, default)]
    pub(super) body: Option<&'a RawValue>,
}

impl BatchAnswer<'_> {
    /// The inner answer's own `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<String> {
        let headers = self.headers.as_ref()?;
        let (_, value) =
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
        Some(value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
    }
}

/// The outer answer of a `$batch`.
#[derive(Deserialize)]
pub(super) struct BatchAnswers<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub(super) responses: Vec<BatchAnswer<'a>>,
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these shapes have string keys and finite numbers only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_201_without_an_id_or_a_code_is_unusable() {
        for body in [
            "",
            "{}",
            r#"{"id":"m"}"#,
            r#"{"id":"m","temporaryAccessPass":null}"#,
            r#"{"id":"../m","temporaryAccessPass":"x"}"#,
            r#"{"id":"m","temporaryAccessPass":"x""#,
            r#"{"id":"m","temporaryAccessPass":""}"#,
        ] {
            let created = created_pass(body.as_bytes());
            assert!(created.is_none_or(|created| created.pass.is_none()), "{body}");
        }
        let body = r#"{"@odata.context":"x","id":"m","isUsable":null,"lifetimeInMinutes":60,"temporaryAccessPass":"+drkzqAD"}"#;
        let created = created_pass(body.as_bytes()).expect("usable");
        assert_eq!(created.found.id.as_str(), "m");
        assert_eq!(created.found.lifetime_in_minutes, Some(60));
    }

    #[test]
    fn null_in_place_of_a_list_is_an_empty_one() {
        let policy: Policy = serde_json::from_str(
            r#"{"state":"enabled","includeTargets":null,"excludeTargets":null}"#,
        )
        .expect("a policy");
        assert!(policy.include_targets.is_empty() && policy.exclude_targets.is_empty());
        let page: ListPage<FoundPass> = serde_json::from_str(r#"{"value":null}"#).expect("a page");
        assert!(page.value.is_empty());
        assert!(serde_json::from_str::<ListPage<FoundPass>>("{}").is_err(), "this is no listing");
        let user =
            r#"{"id":"11111111-2222-4333-8444-555555555555","identities":null,"otherMails":null}"#;
        assert!(!serde_json::from_str::<User>(user).expect("a user").is_external_guest());
        let error = error(br#"{"error":{"code":"badRequest","message":null}}"#).expect("an error");
        assert_eq!((error.code.as_str(), error.message.as_str()), ("badRequest", ""));
        let target: Target = serde_json::from_str(r#"{"id":null}"#).expect("a target");
        assert!(!target.is_everyone());
    }

    #[test]
    fn a_start_goes_out_in_utc() {
        let asked = Asked {
            start: Some("2026-03-02T08:00:00+01:00".parse().expect("a time")),
            lifetime_minutes: 60,
            one_time: false,
        };
        let body = String::from_utf8(create_body(&asked)).expect("text");
        assert_eq!(
            body,
            r#"{"startDateTime":"2026-03-02T07:00:00Z","lifetimeInMinutes":60,"isUsableOnce":false}"#
        );
    }

    #[test]
    fn a_pass_is_live_unless_it_is_known_to_be_over() {
        let pass = |reason: Option<&str>, usable| FoundPass {
            id: "m".parse().expect("an id"),
            created_date_time: Some("2026-03-01T08:00:00Z".parse().expect("a time")),
            start_date_time: None,
            lifetime_in_minutes: Some(60),
            is_usable_once: Some(false),
            is_usable: usable,
            method_usability_reason: reason.map(ToOwned::to_owned),
        };
        let early = "2026-03-01T08:30:00Z".parse().expect("a time");
        let late = "2026-03-01T09:30:00Z".parse().expect("a time");
        assert!(pass(None, None).is_live(early));
        assert!(!pass(None, None).is_live(late));
        assert!(pass(Some("NotYetValid"), Some(false)).is_live(early));
        assert!(pass(Some("DisabledByPolicy"), Some(false)).is_live(early));
        assert!(!pass(Some("OneTimeUsed"), Some(false)).is_live(early));
        assert!(!pass(Some("Expired"), Some(false)).is_live(early));
    }
}
