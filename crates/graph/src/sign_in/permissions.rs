//! Promises to tell, before any call that needs them, which permissions a token lacks.
//!
//! Reads a token's claims, never trusts them: Graph alone decides. What is not recognised
//! is a doubt to be told, never a refusal. Must never keep or print the token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Whatever the signed-in person may do in the directory. Microsoft's reference names it for users
/// and groups and not for passes and policies, but it is too wide to prove that something is lacking.
pub const WIDE: &str = "Directory.AccessAsUser.All";
/// Permissions that are known to be of no use here, besides those that suffice for another need:
/// what sign-in itself brings, what the Azure CLI asks for, and what applications often have.
const OF_NO_USE: [&str; 14] = [
    "openid",
    "profile",
    "email",
    "offline_access",
    "user_impersonation",
    "User.Read",
    "User.ReadWrite",
    "Application.Read.All",
    "AuditLog.Read.All",
    "Calendars.Read",
    "Files.Read.All",
    "Mail.Read",
    "Organization.Read.All",
    "Sites.Read.All",
];
/// What lets an application send as some mailboxes and stands in no token (documented).
const BY_EXCHANGE: &str = "Exchange's role-based access control for applications";
/// The roles by which a person may make and delete passes: Authentication Administrator, Privileged
/// Authentication Administrator, Global Administrator (documented template ids, the same everywhere).
const PASS_ROLES: [&str; 3] = [
    "c4e39bd9-1100-46d3-8c65-fb160da0071f",
    "7be44c8a-adaf-4e2a-84d6-ab2649e08a13",
    "62e90394-69f5-4237-9190-012177145e10",
];

/// What a command will do with Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Create and delete passes.
    WritePasses,
    /// List passes.
    ReadPasses,
    /// Read the policy.
    ReadPolicy,
    /// Change the policy.
    WritePolicy,
    /// Look users up.
    ReadUsers,
    /// Resolve groups and membership.
    ReadGroups,
    /// Send mail through Graph.
    SendMail,
}

impl Need {
    /// Each of them.
    const ALL: [Self; 7] = [
        Self::WritePasses,
        Self::ReadPasses,
        Self::ReadPolicy,
        Self::WritePolicy,
        Self::ReadUsers,
        Self::ReadGroups,
        Self::SendMail,
    ];

    /// The permissions that suffice, least first (Microsoft's reference).
    #[must_use]
    pub const fn sufficient(self) -> &'static [&'static str] {
        match self {
            Self::WritePasses => {
                &["UserAuthMethod-TAP.ReadWrite.All", "UserAuthenticationMethod.ReadWrite.All"]
            }
            Self::ReadPasses => &[
                "UserAuthMethod-TAP.Read.All",
                "UserAuthMethod-TAP.ReadWrite.All",
                "UserAuthenticationMethod.Read.All",
                "UserAuthenticationMethod.ReadWrite.All",
            ],
            Self::ReadPolicy => &[
                "Policy.Read.AuthenticationMethod",
                "Policy.Read.All",
                "Policy.ReadWrite.AuthenticationMethod",
            ],
            Self::WritePolicy => &["Policy.ReadWrite.AuthenticationMethod"],
            Self::ReadUsers => &[
                "User.Read.All",
                "User.ReadWrite.All",
                "Directory.Read.All",
                "Directory.ReadWrite.All",
                WIDE,
            ],
            Self::ReadGroups => &[
                "GroupMember.Read.All",
                "GroupMember.ReadBasic.All",
                "Group.Read.All",
                "GroupMember.ReadWrite.All",
                "Group.ReadWrite.All",
                "Directory.Read.All",
                "Directory.ReadWrite.All",
                WIDE,
            ],
            Self::SendMail => &["Mail.Send"],
        }
    }

    fn is_met_by(self, permission: &str) -> bool {
        self.sufficient().iter().any(|name| name.eq_ignore_ascii_case(permission))
    }

    /// The one to ask an administrator for.
    #[must_use]
    pub const fn least(self) -> &'static str {
        self.sufficient()[0]
    }
}

/// What a token says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grants {
    /// An application's: `roles`.
    Application(TokenClaims),
    /// A person's, through an app: `scp`.
    Delegated(TokenClaims),
    /// Not a JWT, or one without either claim: used as it is.
    Opaque,
}

/// The claims that matter, all of them public.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenClaims {
    pub permissions: Vec<String>,
    pub tenant: Option<String>,
    /// The account or the application, for people.
    pub who: Option<String>,
    /// The template ids of the directory roles that a person has in the whole tenant and that are
    /// active now: an eligible role is not among them. Absent if the token does not say.
    pub roles: Option<Vec<String>>,
}

/// What a token's permissions come to for some needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermissionVerdict {
    /// They suffice, or nothing is known of them.
    Enough,
    /// None that is known to suffice for these is there, and one that may.
    Doubtful {
        /// What they may not suffice for.
        needs: Vec<Need>,
        /// The permissions that may suffice.
        perhaps: Vec<String>,
    },
    /// Every permission is known, and none suffices for these.
    Lacking(Vec<Need>),
}

impl Grants {
    /// Reads a token's claims.
    #[must_use]
    pub fn read(token: &str) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Payload {
            roles: Option<Vec<String>>,
            scp: Option<String>,
            tid: Option<String>,
            upn: Option<String>,
            app_displayname: Option<String>,
            appid: Option<String>,
            wids: Option<Vec<String>>,
        }
        let mut parts = token.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::Opaque;
        };
        let payload = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .ok()
            .and_then(|json| serde_json::from_slice::<Payload>(&json).ok())
            .unwrap_or_default();
        let claims = |permissions| TokenClaims {
            permissions,
            tenant: payload.tid.clone(),
            who: payload
                .upn
                .clone()
                .or_else(|| payload.app_displayname.clone())
                .or_else(|| payload.appid.clone()),
            roles: payload.wids.clone(),
        };
        match (&payload.roles, &payload.scp) {
            (_, Some(scopes)) => {
                Self::Delegated(claims(scopes.split_whitespace().map(ToOwned::to_owned).collect()))
            }
            (Some(roles), None) => Self::Application(claims(roles.clone())),
            // An application without a single role carries neither claim.
            (None, None) if payload.appid.is_some() && payload.tid.is_some() => {
                Self::Application(claims(Vec::new()))
            }
            (None, None) => Self::Opaque,
        }
    }

    /// What the permissions come to for `needs`. Only what is certain is lacking.
    #[must_use]
    pub fn judge(&self, needs: &[Need]) -> PermissionVerdict {
        let Some(claims) = self.claims() else { return PermissionVerdict::Enough };
        let holds = |need: &Need| claims.permissions.iter().any(|held| need.is_met_by(held));
        let unmet: Vec<Need> = needs.iter().filter(|need| !holds(need)).copied().collect();
        if unmet.is_empty() {
            return PermissionVerdict::Enough;
        }
        let mut perhaps: Vec<String> =
            claims.permissions.iter().filter(|held| may_suffice(held)).cloned().collect();
        let is_application = matches!(self, Self::Application(_));
        let (by_exchange, certain): (Vec<Need>, Vec<Need>) =
            unmet.iter().partition(|need| is_application && **need == Need::SendMail);
        if perhaps.is_empty() && !certain.is_empty() {
            return PermissionVerdict::Lacking(certain);
        }
        if !by_exchange.is_empty() {
            perhaps.push(BY_EXCHANGE.to_owned());
        }
        PermissionVerdict::Doubtful { needs: unmet, perhaps }
    }

    /// Whether it is certain that they do not suffice for `need`.
    #[must_use]
    pub fn lacks(&self, need: Need) -> bool {
        matches!(self.judge(&[need]), PermissionVerdict::Lacking(_))
    }

    /// Whether a person has said which roles are active, and none of them lets passes be made in
    /// the whole tenant. A role over an administrative unit is not in a token.
    #[must_use]
    pub fn has_no_role_for_passes(&self) -> bool {
        let Self::Delegated(TokenClaims { roles: Some(roles), .. }) = self else { return false };
        let suffices = |role: &String| PASS_ROLES.iter().any(|one| one.eq_ignore_ascii_case(role));
        !roles.iter().any(suffices)
    }

    /// The claims, if the token has any.
    #[must_use]
    pub const fn claims(&self) -> Option<&TokenClaims> {
        match self {
            Self::Application(claims) | Self::Delegated(claims) => Some(claims),
            Self::Opaque => None,
        }
    }

    /// `application`, `delegated` or `opaque`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Application(_) => "application",
            Self::Delegated(_) => "delegated",
            Self::Opaque => "opaque",
        }
    }
}

/// Whether a permission may bring more than is known of it.
fn may_suffice(permission: &str) -> bool {
    let known = Need::ALL.iter().any(|need| need.is_met_by(permission))
        || OF_NO_USE.iter().any(|name| name.eq_ignore_ascii_case(permission));
    !known || permission.eq_ignore_ascii_case(WIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &serde_json::Value) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    #[test]
    fn what_is_lacking_is_named_least_privileged_first() {
        let grants = Grants::read(&token(&serde_json::json!({
            "roles": ["User.Read.All", "Policy.Read.All"], "tid": "t", "appid": "a"
        })));
        assert_eq!(grants.kind(), "application");
        let needs = [Need::WritePasses, Need::ReadPolicy, Need::ReadUsers];
        assert_eq!(grants.judge(&needs), PermissionVerdict::Lacking(vec![Need::WritePasses]));
        assert_eq!(Need::WritePasses.least(), "UserAuthMethod-TAP.ReadWrite.All");
    }

    #[test]
    fn a_wider_permission_suffices() {
        let grants = Grants::read(&token(&serde_json::json!({
            "scp": "UserAuthenticationMethod.ReadWrite.All Directory.Read.All", "upn": "ada@contoso.example"
        })));
        assert_eq!(grants.kind(), "delegated");
        let needs = [Need::WritePasses, Need::ReadPasses, Need::ReadUsers, Need::ReadGroups];
        assert_eq!(grants.judge(&needs), PermissionVerdict::Enough);
    }

    #[test]
    fn an_opaque_token_lacks_nothing_that_we_know_of() {
        for opaque in ["", "abc", "a.b.c", "a.b.c.d", "e30.e30.sig"] {
            assert_eq!(Grants::read(opaque), Grants::Opaque, "{opaque:?}");
            assert_eq!(Grants::read(opaque).judge(&[Need::WritePasses]), PermissionVerdict::Enough);
        }
    }
    #[test]
    fn a_doubt_is_not_a_refusal() {
        let judge = |scopes: &str| {
            let grants = Grants::read(&token(&serde_json::json!({ "scp": scopes })));
            grants.judge(&[Need::WritePasses, Need::ReadUsers, Need::ReadGroups])
        };
        let tap = "UserAuthMethod-TAP.ReadWrite.All";
        assert_eq!(
            judge(&format!("{tap} User.Read.All GroupMember.ReadBasic.All")),
            PermissionVerdict::Enough
        );
        assert_eq!(judge(&format!("{tap} Directory.AccessAsUser.All")), PermissionVerdict::Enough);
        for new in ["Directory.AccessAsUser.All", "User.Read.All Passes.Everything.All"] {
            assert!(matches!(judge(new), PermissionVerdict::Doubtful { .. }), "{new}");
        }
        let mailer = Grants::read(&token(&serde_json::json!({ "roles": ["User.Read.All"] })));
        assert!(
            matches!(mailer.judge(&[Need::SendMail]), PermissionVerdict::Doubtful { .. }),
            "Exchange may"
        );
        let both = mailer.judge(&[Need::SendMail, Need::WritePasses]);
        assert_eq!(both, PermissionVerdict::Lacking(vec![Need::WritePasses]));
        for few in ["", "openid profile email User.Read", "Mail.Send Policy.Read.All"] {
            assert!(matches!(judge(few), PermissionVerdict::Lacking(_)), "{few}");
        }
    }

    #[test]
    fn a_person_without_an_active_role_is_known() {
        let has_none =
            |claims: &serde_json::Value| Grants::read(&token(claims)).has_no_role_for_passes();
        let member = "b79fbf4d-3ef9-4689-8143-76b194e85509";
        assert!(has_none(&serde_json::json!({"scp": "x", "wids": [member]})));
        assert!(has_none(&serde_json::json!({"scp": "x", "wids": []})));
        for role in PASS_ROLES {
            assert!(!has_none(&serde_json::json!({"scp": "x", "wids": [member, role]})));
        }
        assert!(!has_none(&serde_json::json!({"scp": "x"})), "it does not say");
        assert!(!has_none(&serde_json::json!({"scp": "x", "wids": null})), "it does not say");
        assert!(!has_none(&serde_json::json!({"roles": ["x"], "wids": []})), "an application");
    }
}
